"""Read-ahead: a client that reads the log page after page gets a consumer that fetches the next.

A page by direct get needs no preparation, but the server answers it at half the speed of a
consumer, and each page waits for the last. So a walk begins where a full page ended, and ends when
it breaks, reaches the end or is no longer used: a direct get can always go on. A stream allows
1,000 consumers and memory is finite, so only a few walks are open at once.
"""

import asyncio
from collections.abc import Sequence

from streams.jetstream.connection import Connection
from streams.jetstream.consumer import Consumer, ConsumerBroken
from streams.jetstream.leadership import Patience
from streams.log import BadFact, Fact, LogUnavailable

MAX_WALKS = 4
PULLS = 2
INACTIVE_S = 10  # after which the server forgets a walk whose instance has died
SLICE = 250  # facts decoded before the loop is given back

WalkPlace = tuple[tuple[str, ...], int]


class Walk:
    """One consumer on its way, from the moment that it is asked for."""

    def __init__(self, consumer: Consumer, silence_s: float) -> None:
        self.consumer = consumer
        self._silence_s = silence_s
        self.opened = asyncio.create_task(consumer.open(), name="log walk")
        self.taken_at = self.opened.get_loop().time()

    async def take(self, limit: int) -> tuple[list[Fact | BadFact], bool]:
        """Up to ``limit`` facts, and whether the walk can go on."""
        facts: list[Fact | BadFact] = []
        consumer = self.consumer
        try:
            await asyncio.shield(self.opened)
            while len(facts) < limit and not consumer.at_end:
                await consumer.until_news(self._silence_s)
                facts += consumer.take(min(SLICE, limit - len(facts)))
                await asyncio.sleep(0)
        except (ConsumerBroken, LogUnavailable):
            return facts, False
        self.taken_at = self.opened.get_loop().time()
        return facts, not consumer.at_end

    async def shut(self) -> None:
        """Delete the consumer."""
        self.opened.cancel()
        await asyncio.wait([self.opened])
        if not self.opened.cancelled():
            self.opened.exception()  # its reader has gone on by direct gets
        await self.consumer.shut()


class Walks:
    """The walks along one stream, by the filters that they read and where they stand."""

    def __init__(self, connection: Connection, stream: str, patience: Patience) -> None:
        self._patience = patience
        self._connection = connection
        self._stream = stream
        self._standing: dict[WalkPlace, Walk] = {}
        self._moving = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._looking: asyncio.TimerHandle | None = None
        self._unwatch = connection.watch(self._interrupt)

    def __len__(self) -> int:
        return len(self._standing) + self._moving

    def begin(self, subjects: Sequence[str], after: int) -> None:
        """Let a consumer fetch what follows ``after``, if there is room for one."""
        place = (tuple(subjects), after)
        if place in self._standing or len(self) >= MAX_WALKS:
            return
        consumer = Consumer(
            self._connection,
            self._stream,
            after,
            subjects=subjects,
            pulls=PULLS,
            inactive_s=INACTIVE_S,
        )
        self._stand(place, Walk(consumer, self._patience.silence_s))

    async def take(self, subjects: Sequence[str], after: int, limit: int) -> list[Fact | BadFact]:
        """Up to ``limit`` facts above ``after``; none if no walk stands there or it has ended."""
        way = tuple(subjects)
        walk = self._standing.pop((way, after), None)
        if walk is None:
            return []
        self._moving += 1
        sound = False
        try:
            facts, sound = await walk.take(limit)
        finally:
            self._moving -= 1
            place = (way, walk.consumer.position)
            if sound and place not in self._standing:
                self._stand(place, walk)
            else:
                self._drop(walk)
        return facts

    async def close(self) -> None:
        """End every walk."""
        self._unwatch()
        if self._looking is not None:
            self._looking.cancel()
        self._drop_all()
        if self._closing:
            await asyncio.wait(self._closing)

    def _stand(self, place: WalkPlace, walk: Walk) -> None:
        self._standing[place] = walk
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(
                self._patience.unused_s, self._look
            )

    def _look(self) -> None:
        """Drop the walks that are no longer used; check again while any is left."""
        loop, unused_s = asyncio.get_running_loop(), self._patience.unused_s
        for place, walk in list(self._standing.items()):
            if walk.taken_at <= loop.time() - unused_s:
                self._drop(self._standing.pop(place))
        self._looking = loop.call_later(unused_s / 2, self._look) if self._standing else None

    def _interrupt(self) -> None:
        # What a walk still waits for died with the old socket.
        self._drop_all()

    def _drop_all(self) -> None:
        for place in list(self._standing):
            self._drop(self._standing.pop(place))

    def _drop(self, walk: Walk) -> None:
        task = asyncio.create_task(walk.shut(), name="log walk ends")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
