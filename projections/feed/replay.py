"""Parts of the log read for clients that are behind: shared, bounded in number and in memory.

Clients that resume from about the same place, as they do after a restart, are served from one
read: a client that asks for a page that is being read waits for that read, and the last pages are
kept for a while. At most ``FeedLimits.reads`` are under way at once; a read that no client waits
for any more is cancelled.
"""

import asyncio
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec

from projections.feed.cuts import Cut, cut, place_after
from projections.feed.entry import FeedEntry, Interest, entries_of
from projections.feed.limits import FeedLimits
from projections.feed.meter import Meter
from streams.log import BadFact, Fact, Log, LogReset, LogState

SLICE = 1_000  # facts taken in before the loop is given back: about a millisecond


class ReplayPage(msgspec.Struct, frozen=True, gc=False):
    """Every event above ``start`` up to ``last`` (log sequences) of the log or of one plan.

    ``state`` is how the log was after the read, if events below its first, or of plans that were
    forgotten, may have left the log before they could be read.
    """

    start: int
    last: int
    entries: Sequence[FeedEntry]
    weight: int
    read_at: float
    state: LogState | None = None

    def lost_after(self, cursor: int) -> LogState | None:
        """The log's state if what comes next after ``cursor`` has left the log, else None."""
        if self.state is None or self.state.first <= cursor + 1:
            return None
        place = place_after(self.entries, cursor)
        kept = place < len(self.entries) and self.entries[place].sequence < self.state.first
        return None if kept else self.state

    def after(
        self,
        cursor: int,
        interest: Interest,
        limits: FeedLimits,
        on_skim: Callable[[FeedEntry], None] | None = None,
    ) -> Cut:
        """What ``interest`` wants next after ``cursor``, which lies in the page or beyond it."""
        place = place_after(self.entries, cursor)
        return cut(self.entries, place, interest, max(self.last, cursor), limits, on_skim)


Key = tuple[str | None, int]


class Reading:
    """One read under way, and how many clients wait for it."""

    def __init__(self, task: "asyncio.Task[ReplayPage]") -> None:
        self.task = task
        self.waiting = 0


class Pages:
    """Reads ``log``, as long as it is the one of ``epoch``, in pages of ``size`` events."""

    def __init__(self, log: Log, size: int, epoch: str, meter: Meter, limits: FeedLimits) -> None:
        self._log = log
        self._size = size
        self._epoch = epoch
        self._meter = meter
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.reads)
        self._kept: OrderedDict[Key, ReplayPage] = OrderedDict()
        self._starts: dict[str | None, list[int]] = {}
        self._kept_bytes = 0
        self._reading: dict[Key, Reading] = {}

    async def after(self, cursor: int, plan_id: str | None, reach: int) -> ReplayPage:
        """A page that ``cursor`` lies in; without events after it, it reaches ``reach`` at most.

        ``reach`` is a sequence that the log is known to have reached. Raises LogUnavailable, and
        LogReset when the log is another one.
        """
        page = self._find(cursor, plan_id)
        if page is None:
            page = await self._wait_for(self._begin(self._shared(cursor, plan_id), reach))
            if page.last <= cursor:
                # Large events end a page early, and it may be gone before it is looked for again.
                page = await self._wait_for(self._begin((plan_id, cursor), reach))
        self._read_ahead(page, plan_id, reach)
        return page

    def _begin(self, key: Key, reach: int) -> Key:
        if key not in self._reading:
            task = asyncio.create_task(self._read(key, reach), name="sse read")
            self._reading[key] = Reading(task)
            task.add_done_callback(lambda task: self._read_ended(key, task))
        return key

    async def _wait_for(self, key: Key) -> ReplayPage:
        # One client that leaves must not take the page from the others, and the last one that
        # leaves must end the read: clients that come and go quickly could else pile up reads.
        reading = self._reading[key]
        reading.waiting += 1
        try:
            return await asyncio.shield(reading.task)
        finally:
            reading.waiting -= 1
            if not reading.waiting and not reading.task.done():
                self._reading.pop(key, None)
                reading.task.cancel()

    def _read_ahead(self, page: ReplayPage, plan_id: str | None, reach: int) -> None:
        """Fetch the next page while this one is written, if no client waits for a read."""
        if (
            page.last < reach
            and len(page.entries) * 2 >= self._size
            and not self._slots.locked()
            and self._find(page.last, plan_id) is None
        ):
            self._begin(self._shared(page.last, plan_id), reach)

    def forget_old(self) -> None:
        """Drop the pages that were read more than ``FeedLimits.kept_s`` ago."""
        oldest = asyncio.get_running_loop().time() - self._limits.kept_s
        for key in [key for key, page in self._kept.items() if page.read_at < oldest]:
            self._drop(key)

    @property
    def kept_bytes(self) -> int:
        """What the pages kept weigh."""
        return self._kept_bytes

    @property
    def reads(self) -> int:
        """How many reads are under way or wait for their turn."""
        return len(self._reading)

    async def close(self) -> None:
        """Stop what is being read."""
        reading = [each.task for each in self._reading.values()]
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)

    def _find(self, cursor: int, plan_id: str | None) -> ReplayPage | None:
        starts = self._starts.get(plan_id)
        place = bisect_right(starts, cursor) if starts else 0
        if not starts or not place:
            return None
        page = self._kept[plan_id, starts[place - 1]]
        return page if page.last > cursor else None

    def _shared(self, cursor: int, plan_id: str | None) -> Key:
        # Cursors differ by a little; pages that begin at round sequences are the same for all.
        start = cursor - cursor % self._size
        if plan_id is None and self._find(start, None) is None:
            return None, start
        return plan_id, cursor

    async def _read(self, key: Key, reach: int) -> ReplayPage:
        plan_id, start = key
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        async with self._slots:
            if (page := self._find(start, plan_id)) is not None:
                return page  # read for another client while this one waited
            facts = await self._log.scan(start, self._size, plan_id)
            state = await self._state_if_torn(start, facts)
        self._count_read(len(facts), clock() - asked_at)
        if state is not None:
            # Events that left the log during the read are reported between two pages.
            facts = [fact for fact in facts if fact.sequence < state.first] or facts
        page = ReplayPage(
            start,
            facts[-1].sequence if facts else reach,
            entries := await _entries_of(facts),
            sum(entry.weight for entry in entries),
            clock(),
            state,
        )
        if facts:
            self._keep(key, page)
        return page

    def _count_read(self, events: int, seconds: float) -> None:
        self._meter.count("agent.sse.replay.batch.total")
        self._meter.count(f"agent.sse.replay.{'hit' if events else 'empty'}.total")
        self._meter.count("agent.sse.replay.events.total", events)
        self._meter.observe("agent.sse.replay.duration", seconds)

    async def _state_if_torn(self, start: int, facts: Sequence[Fact | BadFact]) -> LogState | None:
        # Holes are legitimate (heartbeats expire, other plans are left out), unless the log's
        # beginning has moved beyond them, or plans were forgotten meanwhile.
        if facts and facts[-1].sequence - start == len(facts):
            return None
        state = await self._log.state()
        if state.epoch != self._epoch:
            raise LogReset("the log was made anew")
        return state if max(state.first - 1, state.forgotten) > start else None

    def _read_ended(self, key: Key, task: "asyncio.Task[ReplayPage]") -> None:
        reading = self._reading.get(key)
        if reading is not None and reading.task is task:
            del self._reading[key]
        if not task.cancelled():
            task.exception()  # the clients that wait have it; without one, it may be dropped

    def _keep(self, key: Key, page: ReplayPage) -> None:
        if key in self._kept:
            self._drop(key)
        self._kept[key] = page
        insort(self._starts.setdefault(key[0], []), page.start)
        self._kept_bytes += page.weight
        while self._kept_bytes > self._limits.kept_bytes and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        page = self._kept.pop(key)
        self._kept_bytes -= page.weight
        starts = self._starts[key[0]]
        starts.remove(page.start)
        if not starts:
            del self._starts[key[0]]


async def _entries_of(facts: Sequence[Fact | BadFact]) -> list[FeedEntry]:
    entries: list[FeedEntry] = []
    for start in range(0, len(facts), SLICE):
        if start:
            await asyncio.sleep(0)
        entries += entries_of(facts[start : start + SLICE])
    return entries
