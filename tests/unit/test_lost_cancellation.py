"""A stop is carried out although a library has lost the first cancellation."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from service.runtime.supervision import guard
from streams.jetstream.connection import Connection
from streams.jetstream.raw_client import RawClient
from streams.log import LogUnavailable


async def lose_one_cancellation() -> None:
    """As `asyncio.wait_for` does before Python 3.12 when its inner future has just ended."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


async def test_a_connection_that_is_given_up_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = RawClient.connect

    async def connect_and_lose_one(client: RawClient, *servers: Any, **options: Any) -> None:
        try:
            await connect(client, *servers, **options)
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    monkeypatch.setattr(RawClient, "connect", connect_and_lose_one)
    with pytest.raises(LogUnavailable):
        async with asyncio.timeout(10):
            await Connection.open("nats://127.0.0.1:1", name="n", timeout_s=0.05)


async def test_a_vital_loop_that_is_stopped_ends() -> None:
    died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(10):
        async with AsyncExitStack() as stack:
            guard(stack, died, loop=lose_one_cancellation())
            await asyncio.sleep(0)
    assert not died.done()
