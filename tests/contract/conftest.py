"""The logs under contract: one suite, two implementations, and a hand that writes past them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import nats
import pytest

from streams.codec import HEADER_LINE
from streams.jetstream.bounds import StreamBounds
from streams.jetstream.drafts import AppenderLimits
from streams.jetstream.leadership import Patience
from streams.jetstream.log import JetStreamLog
from streams.log import Log
from tests.conftest import PrivateServer
from tests.contract.wire import wire
from tests.memory_log import MemoryLog

__all__ = ["wire"]

Publish = Callable[[str, bytes, dict[str, str]], Awaitable[None]]

MAX_PAYLOAD = 1024 * 1024


class World:
    """A log, a client that writes to its subjects by hand, and one that deletes it."""

    def __init__(self, log: Log, publish: Publish, wipe: Callable[[], Awaitable[None]]) -> None:
        self.log = log
        self.publish = publish
        self.wipe = wipe


def memory_world(max_bytes: int | None) -> World:
    log = MemoryLog(max_bytes=max_bytes, max_payload=MAX_PAYLOAD)

    async def publish(subject: str, payload: bytes, headers: dict[str, str]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        log.publish(subject, payload, HEADER_LINE + lines.encode() + b"\r\n")

    async def wipe() -> None:
        log.reset()

    return World(log, publish, wipe)


async def jetstream_world(url: str, max_bytes: int | None) -> tuple[World, Any]:
    limits = AppenderLimits(budget_s=10, try_s=1, grace_s=0.5)
    bounds = StreamBounds(plans_bytes=max_bytes)
    patience = Patience(doubt_s=1)  # one server holds no election that a short head may wait for
    log = await JetStreamLog.connect(url, bounds=bounds, limits=limits, patience=patience)
    client = await nats.connect(url)

    async def publish(subject: str, payload: bytes, headers: dict[str, str]) -> None:
        await client.request(subject, payload, headers=headers or None, timeout=5)

    async def wipe() -> None:
        await client.request("$JS.API.STREAM.DELETE.PLANS", b"", timeout=5)
        other = await JetStreamLog.connect(url, bounds=bounds)
        await other.close()

    return World(log, publish, wipe), client


@pytest.fixture(params=["memory", "jetstream"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def make_world(
    kind: str, start_nats: Callable[[], PrivateServer]
) -> AsyncIterator[Callable[..., Awaitable[World]]]:
    opened: list[Any] = []

    async def make(max_bytes: int | None = None) -> World:
        if kind == "memory":
            return memory_world(max_bytes)
        world, client = await jetstream_world(start_nats().url, max_bytes)
        opened.extend([world.log, client])
        return world

    yield make
    for each in opened:
        await each.close()


@pytest.fixture
async def world(make_world: Callable[[], Awaitable[World]]) -> World:
    """An empty log without limits."""
    return await make_world()


@pytest.fixture
def log(world: World) -> Log:
    return world.log
