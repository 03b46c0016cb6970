"""A connection that is closed while its server is gone leaves no task that tries on."""

import asyncio
from typing import Any

from streams.jetstream.raw_client import RawClient
from tests.conftest import PrivateServer
from tests.waiting import eventually


class Losing(RawClient):
    """Loses one cancellation of a reconnect, as `asyncio.wait_for` may before Python 3.12."""

    def __init__(self) -> None:
        super().__init__()
        self.reconnecting = False

    async def _select_next_server(self) -> None:
        if self.reconnecting or not self.is_reconnecting:
            await super()._select_next_server()
            return
        self.reconnecting = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()


async def quiet(_: Exception) -> None:
    """nats-py prints errors without it."""


async def test_a_reconnect_that_loses_its_cancellation_ends_with_its_connection(
    private_nats: PrivateServer,
) -> None:
    before = asyncio.all_tasks()
    client: Any = Losing()
    await client.connect(private_nats.url, max_reconnect_attempts=-1, error_cb=quiet)
    private_nats.kill()
    await eventually(lambda: client.reconnecting)
    await client.close()
    await eventually(lambda: asyncio.all_tasks() <= before, "no task of it is left")
