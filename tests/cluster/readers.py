"""Event readers that hop from instance to instance and resume by cursor alone."""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress

from tests.cluster.record import Reading
from tests.faults.sse_client import Connection, Manner, Story, StreamFault, ask, begun

STAY_S = (0.3, 6.0)
PAUSE_S = 0.2
MANNERS: tuple[Manner, ...] = ("close", "reset")


class EventReader:
    """Reads the stream of the whole log, in one life on many instances."""

    def __init__(
        self, name: str, addresses: Mapping[int, str], dice: random.Random, cursor: int | None
    ) -> None:
        self.story = Story(cursor)
        self._name = name
        self._addresses = addresses
        self._dice = dice
        self._start = cursor
        self._connection: Connection | None = None

    @property
    def reading(self) -> Reading:
        """What it was sent so far."""
        return Reading(
            self._name,
            self._first_cursor(),
            self.story.sequences,
            [f"{gap.data}" for gap in self.story.told("gap")],
            self.story.faults,
        )

    async def read(self) -> None:
        """Hop until cancelled."""
        try:
            while True:
                instance = self._dice.choice(tuple(self._addresses))
                await self._visit(instance, self._dice.uniform(*STAY_S))
        finally:
            self._leave("reset")

    async def read_to(self, sequence: int, within_s: float) -> None:
        """Go on until this event has come; what is missing then shows as a hole."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while (self.story.cursor or 0) < sequence:
                    instance = self._dice.choice(tuple(self._addresses))
                    await self._visit(instance, 2.0, sequence)
        self._leave("reset")

    async def _visit(self, instance: int, stay_s: float, enough: int | None = None) -> None:
        try:
            async with asyncio.timeout(stay_s):
                await self._listen(instance, enough)
        except TimeoutError:
            pass  # the stay is over
        except (OSError, StreamFault):  # no connection, or no answer
            await asyncio.sleep(PAUSE_S)
        finally:
            self._leave(self._dice.choice(MANNERS))

    async def _listen(self, instance: int, enough: int | None) -> None:
        """Until the stream ends or ``enough`` has come."""
        connection = await ask(
            self._addresses[instance],
            "/v1/events",
            self.story,
            cursor=self.story.cursor,
            header=self._dice.random() < 0.5,
        )
        self._connection = connection
        if await begun(connection) != 200:
            await asyncio.sleep(PAUSE_S)
            return
        while not connection.ended.is_set():
            if enough is not None and (self.story.cursor or 0) >= enough:
                return
            await asyncio.sleep(0.05)

    def _first_cursor(self) -> int:
        """What it asked for, or else where its first greeting says that it began; else -1."""
        if self._start is not None:
            return self._start
        greetings = (hello.id for hello in self.story.told("hello") if hello.id is not None)
        return next(greetings, -1)

    def _leave(self, manner: Manner) -> None:
        if self._connection is not None and not self._connection.ended.is_set():
            self._connection.hang_up(manner)
