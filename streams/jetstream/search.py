"""Moves a connection to another server when its own cannot show who leads the log.

A server is left for two reasons only: it answers no PING, or another one shows a leader with a
quorum and this one still does not. So an election moves no instance, however long it takes, and an
instance at a server that is cut off moves as soon as there is a leader to move to.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from streams.jetstream.connection import Connection
from streams.jetstream.leadership import PATIENCE, Patience
from streams.log import LogReset, LogUnavailable, TopologyMismatch

LOOK_S = 0.5  # between two looks at the other servers
ANSWER_S = 1.5  # of a server, and as long for the connection to it


class Search:
    """The search for a server with a leader; runs from `begin` on while ``is_in_doubt``.

    ``here`` asks the server of ``connection`` for a leader that counts, ``there`` that of another
    connection; they raise LogUnavailable or LogReset when it shows none.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        here: Callable[[], Awaitable[object]],
        there: Callable[[Connection], Awaitable[object]],
        is_in_doubt: Callable[[], bool],
        patience: Patience = PATIENCE,
    ) -> None:
        self._connection = connection
        self._here = here
        self._there = there
        self._is_in_doubt = is_in_doubt
        self._patience = patience
        self._running: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Search unless a search is under way."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="search for a server")

    async def close(self) -> None:
        """Search no more."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        search_at = time.monotonic() + self._patience.search_s
        while self._is_in_doubt():
            if not await self._connection.answers_ping(self._patience.ping_s):
                self._connection.leave(f"it answered no PING in {self._patience.ping_s:g} s")
            elif time.monotonic() >= search_at:
                await self._move()
            await asyncio.sleep(LOOK_S)

    async def _move(self) -> None:
        """Go to another server that shows a leader, if this one, asked once more, does not."""
        found = await self._elsewhere()
        if found is not None and not await _in_time(self._here()):
            self._connection.leave("another server shows who leads the log", found)

    async def _elsewhere(self) -> str | None:
        """The URL of another server that shows a leader; None if there is none."""
        others = self._connection.others
        shown = await asyncio.gather(*map(self._is_led, others))
        led = [url for url, is_led in zip(others, shown, strict=True) if is_led]
        return random.choice(led) if led else None  # noqa: S311 - spreads the instances

    async def _is_led(self, url: str) -> bool:
        with suppress(LogUnavailable, TopologyMismatch):
            async with self._connection.beside(url, ANSWER_S) as connection:
                return await _in_time(self._there(connection))
        return False


async def _in_time(shown: Awaitable[object]) -> bool:
    """Whether the leader is shown, and soon."""
    try:
        async with asyncio.timeout(ANSWER_S):
            await shown
    except (LogUnavailable, LogReset, TimeoutError):
        return False
    return True
