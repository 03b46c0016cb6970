"""Logs on private servers; both end with their test."""

from collections.abc import AsyncIterator, Callable

import pytest

from streams.jetstream.log import JetStreamLog
from tests.conftest import PrivateServer
from tests.contract.jetstream.world import LIMITS, Open
from tests.contract.wire import Wire


@pytest.fixture
async def connect(start_nats: Callable[..., PrivateServer]) -> AsyncIterator[Open]:
    del start_nats  # its servers must outlive our connections
    opened: list[JetStreamLog] = []

    async def connect(server: PrivateServer, **options: object) -> JetStreamLog:
        log = await JetStreamLog.connect(server.url, **{"limits": LIMITS, **options})  # type: ignore[arg-type]
        opened.append(log)
        return log

    yield connect
    for log in opened:
        await log.close()


@pytest.fixture
async def log(connect: Open, private_nats: PrivateServer, wire: Wire) -> JetStreamLog:
    del wire  # it sees all that the log sends
    return await connect(private_nats)
