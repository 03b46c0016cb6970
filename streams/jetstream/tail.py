"""A tail on the log: every fact above a position, in order, in batches, across every disturbance.

It is a checked pull consumer (`streams.jetstream.consumer`). Every disturbance (a consumer that
broke, silence where a heartbeat was due, a new connection) has one cure: a new consumer from the
last position + 1. A consumer lives on one server, which may lag or be gone while others are well.
So its position is compared with the highest sequence that the log is known to have; when that does
not arrive in time, it is read from the log directly and the consumer is replaced.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from streams.jetstream.connection import Connection
from streams.jetstream.consumer import HEARTBEAT_S, Consumer, ConsumerBroken
from streams.jetstream.leadership import PATIENCE
from streams.log import BadFact, Fact, LogReset, LogUnavailable

PULLS = 3
SILENCE_S = 2.5 * HEARTBEAT_S  # after which the consumer counts as gone
INACTIVE_S = 60  # after which the server forgets a consumer that is not pulled from
SLICE = 500  # facts yielded at a time
LOOK_S = 0.25  # how often an idle tail compares its position with what the log has


class StreamPosition(msgspec.Struct, frozen=True, gc=False):
    """Which log this is (see LogState.epoch) and its last sequence."""

    epoch: str
    head: int


class Follower:
    """One tail on stream ``stream`` above ``after``; iterate `batches` once.

    ``position_of`` asks which log it is: one that was made anew raises LogReset. ``read_after``
    reads facts above a sequence, at most so many; none only if the leader has none. ``named`` is
    the highest sequence that the log is known to have, which may be owed for ``owed_s``.
    ``on_restart`` is called with the reason whenever a consumer has to be replaced.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        after: int,
        *,
        position_of: Callable[[], Awaitable[StreamPosition]],
        read_after: Callable[[int, int], Awaitable[list[Fact | BadFact]]],
        named: Callable[[], int],
        on_restart: Callable[[str], None],
        owed_s: float = PATIENCE.owed_s,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._position = after
        self._position_of = position_of
        self._read_after = read_after
        self._named = named
        self._on_restart = on_restart
        self._owed_most_s = owed_s
        self._epoch: str | None = None
        self._consumer: Consumer | None = None
        self._owed = 0  # a sequence that has to arrive, 0 for none
        self._owed_since = 0.0
        self._owed_for_s = 0.0  # as far as this was looked at
        self._looked_at = time.monotonic()
        self._brought = after  # by the consumer, when it was last waited for

    @property
    def silent_s(self) -> float:
        """For how many seconds a sequence is owed that the log is known to have; 0 for none."""
        return time.monotonic() - self._owed_since if self._owed > self._position else 0.0

    async def batches(self) -> AsyncGenerator[list[Fact | BadFact], None]:
        """Yield facts for ever. Raises LogReset only."""
        unwatch = self._connection.watch(self._interrupt)
        try:
            while True:
                opening = asyncio.create_task(self._open(), name="tail opens")
                try:
                    while not await _done_within(opening, LOOK_S) or self._is_late:
                        self._look()
                        facts = await self._read() if self._is_late else []
                        if facts:
                            yield facts
                        elif opening.done():
                            break
                    consumer = await opening
                    self._owed_for_s = 0.0
                except BaseException:
                    await _end(opening)
                    raise
                try:
                    while True:
                        await self._until_news(consumer)
                        if facts := self._fresh(consumer.take(SLICE)):
                            yield facts
                            await asyncio.sleep(0)
                except ConsumerBroken as reason:
                    self._on_restart(str(reason))
                finally:
                    await consumer.shut()
        finally:
            unwatch()

    # -- what is owed -----------------------------------------------------------------------

    def _look(self) -> None:
        """Note what the log is known to have and has not arrived, and for how long."""
        now = time.monotonic()
        if self._owed <= self._position:
            named = self._named()
            self._owed = named if named > self._position else 0
            self._owed_since, self._owed_for_s = now, 0.0
        # A loop that was held up has not looked: that is no silence of the consumer.
        self._owed_for_s += min(now - self._looked_at, 2 * LOOK_S)
        self._looked_at = now

    @property
    def _is_late(self) -> bool:
        return self._owed > self._position and self._owed_for_s >= self._owed_most_s

    async def _until_news(self, consumer: Consumer) -> None:
        """Wait for something to take. Raises Broken."""
        silent_at = time.monotonic() + SILENCE_S
        self._look()
        if consumer.position > self._brought and not consumer.at_end:
            self._owed_for_s = 0.0  # it has more to bring, however long all of it takes
        self._brought = consumer.position
        while not (self._is_late and consumer.at_end):
            if await consumer.has_news(LOOK_S):
                return
            self._look()
            if self._is_late:
                break
            if time.monotonic() > silent_at:
                raise ConsumerBroken(f"nothing arrived for {SILENCE_S:g} s, not even a heartbeat")
        raise ConsumerBroken(f"sequence {self._owed} has not arrived in {self._owed_most_s:g} s")

    async def _read(self) -> list[Fact | BadFact]:
        """What comes next, read directly while no consumer brings it."""
        owed = self._owed
        try:
            facts = await self._read_after(self._position, SLICE)
        except LogUnavailable:
            await asyncio.sleep(LOOK_S)
            return []
        # Nothing above the position, although the log got further: those messages have expired.
        self._position = facts[-1].sequence if facts else max(self._position, owed)
        return facts

    def _fresh(self, facts: list[Fact | BadFact]) -> list[Fact | BadFact]:
        """Those of ``facts`` that were not read directly before; the position follows them."""
        if facts and facts[0].sequence <= self._position:
            facts = [fact for fact in facts if fact.sequence > self._position]
        if facts:
            self._position = facts[-1].sequence
        return facts

    # -- consumers --------------------------------------------------------------------------

    async def _open(self) -> Consumer:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(LogUnavailable),
            wait=wait_random_exponential(multiplier=0.05, max=1),
        ):
            with attempt:
                try:
                    return await self._open_once()
                except LogUnavailable as error:
                    self._on_restart(str(error))
                    raise
        raise AssertionError("retried for ever")

    async def _open_once(self) -> Consumer:
        await self._check_log()
        consumer = self._consumer = Consumer(
            self._connection,
            self._stream,
            self._position,
            pulls=PULLS,
            inactive_s=INACTIVE_S,
        )
        try:
            await consumer.open()
        except BaseException:
            await consumer.shut()
            raise
        return consumer

    async def _check_log(self) -> None:
        position = self._position
        found = await self._position_of()
        if self._epoch is None:
            self._epoch = found.epoch
        if found.epoch != self._epoch:
            raise LogReset(f"stream {self._stream} was made anew")
        if found.head < position:
            raise LogReset(
                f"stream {self._stream} ends at {found.head}, before {position}: "
                "it is not the log that was followed"
            )

    def _interrupt(self) -> None:
        # Old pull requests died with the old socket; a new one cannot tell what was missed.
        if self._connection.connected and self._consumer is not None:
            self._consumer.break_off("reconnected")


async def _done_within(task: asyncio.Task[Consumer], wait_s: float) -> bool:
    done, _ = await asyncio.wait([task], timeout=wait_s)
    return bool(done)


async def _end(opening: asyncio.Task[Consumer]) -> None:
    """Give up on a consumer that is not wanted any more."""
    opening.cancel()
    await asyncio.wait([opening])
    if not opening.cancelled() and opening.exception() is None:
        await opening.result().shut()
