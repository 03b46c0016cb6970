"""What the tests of the real log share: its limits, and what they read of the streams by hand."""

from collections.abc import Awaitable, Callable

from streams.jetstream.connection import Connection
from streams.jetstream.drafts import AppenderLimits
from streams.jetstream.log import JetStreamLog
from streams.jetstream.messages import Reply
from streams.jetstream.reader import Reader
from tests.conftest import PrivateServer

LIMITS = AppenderLimits(budget_s=15, try_s=0.3, grace_s=0.5)

Open = Callable[..., Awaitable[JetStreamLog]]


async def stored(server: PrivateServer, subject: str) -> list[Reply]:
    """The raw messages on ``subject`` (a filter)."""

    async def alone() -> bool:
        return False

    connection = await Connection.open(server.url, name="test", timeout_s=5)
    replies = await Reader(connection, "PLANS", alone).messages(subject, 1, 100)
    await connection.close()
    return replies
