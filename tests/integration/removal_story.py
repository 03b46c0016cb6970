"""A story of plans that overlap and are forgotten, and of removals that crash anywhere."""

import itertools
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from msgspec.structs import replace

from projections.log_identity import LogWatch, begins_late
from projections.projector import Projector
from projections.read_models import plans
from projections.read_models.database import Database
from projections.read_models.restore import open_read_models
from service.daemons.removals import RemovalLimits, Removals
from streams.log import Fact
from streams.plan import commands
from streams.plan.events import Raw, Submitted, TaskSpec
from streams.plan.limits import FORGOTTEN_S
from tests.integration.test_forgotten_plans import World
from tests.memory_log import MemoryLog

WAIT_S = 100.0
LIMITS = RemovalLimits(together=4, worth=2, read=12, page=5, alone=2, wait_s=WAIT_S)
EAGER = replace(LIMITS, worth=1, together=2)
PLAN = Submitted(tasks=(TaskSpec(id="a", kind="k"),))
DAY_S = 86_400.0  # heartbeats stay so long
LATER = (WAIT_S / 2, WAIT_S, DAY_S + 1, FORGOTTEN_S)


class Crash(Exception):
    """Ends a removal in the middle of something."""


class MemoryPurger:
    """Purges a MemoryLog, and notes it; after ``steps`` of that it crashes."""

    def __init__(self, log: MemoryLog, steps: int | None = None) -> None:
        self._log = log
        self._left = steps
        self.beginnings: list[int] = []
        self.alone: list[str] = []

    def _step(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Crash

    async def note(self, up_to: int) -> None:
        self._step()
        self._log.forgotten = max(self._log.forgotten, up_to)

    async def remove(self, below: Mapping[str, int], *, tasks: bool = True) -> int:
        for plan_id, sequence in below.items():
            self.alone.append(plan_id)
            found = [each for each in await self._log.read(plan_id) if each.sequence < sequence]
            own = {each.sequence for each in found if isinstance(each, Fact) and not each.task_id}
            for some in (own, {each.sequence for each in found} if tasks else own):
                self._step()
                self._log.purge(some.__contains__)
        return 0

    async def remove_beginning(self, below: int) -> int:
        self._step()
        self.beginnings.append(below)
        self._log.purge(lambda sequence: sequence < below)
        self._step()
        return 0


class Story:
    """Plans that overlap, an instance that removes them, and another one that lags behind."""

    def __init__(self, world: World, other: Projector) -> None:
        self.world, self.log, self.other = world, world.log, other
        self.open: list[str] = []
        self.ended: list[str] = []
        self.forgotten: dict[str, tuple[int, float]] = {}
        self.owners: dict[int, str] = {}  # whose each fact is
        self.chatter: set[int] = set()
        self.names = itertools.count()
        self.missing: list[str] = []
        self.watch = LogWatch(
            self.log,
            lambda: world.projector.witness,
            self._oldest,
            on_missing=self.missing.append,
            on_other=self.missing.append,
        )

    async def _oldest(self, reached: int) -> int | None:
        has_it = self.world.projector.flushed_sequence >= reached
        return await plans.oldest(self.world.database) if has_it else None

    async def begin(self, _: int = 0) -> str:
        name = f"p{next(self.names)}"
        await self.world.say(commands.Submit(plan_id=name, plan=PLAN))
        await self.world.say(commands.Claim(plan_id=name, task_id="a", owner="w", lease_s=40_000))
        self.open.append(name)
        return name

    async def beat(self, which: int) -> None:
        if self.open:
            name = self.open[which % len(self.open)]
            beat = commands.Heartbeat(plan_id=name, task_id="a", owner="w", attempt=1)
            self.chatter.add(await self.world.say(beat))

    async def end(self, which: int = 0) -> None:
        if self.open:
            name = self.open.pop(which % len(self.open))
            one = Raw(b"1")
            await self.world.say(
                commands.Complete(plan_id=name, task_id="a", owner="w", attempt=1, output=one)
            )
            await self.world.say(commands.Finish(plan_id=name))
            self.ended.append(name)

    async def one_more(self, _: int) -> None:
        await self.begin()
        await self.end(-1)

    async def forget(self, which: int = 0) -> None:
        if self.ended:
            name, at = self.ended.pop(which % len(self.ended)), self.world.clock.at
            self.forgotten[name] = (await self.world.forget(name), at)

    async def rubbish(self, which: int) -> None:
        self.log.publish("plans.ghost" if which % 2 else "plans.ghost.t", b"{")

    async def later(self, which: int) -> None:
        passed_s = LATER[which % len(LATER)]
        if passed_s > DAY_S:  # rows of unfinished plans know heartbeats that a rebuild cannot
            while self.open:
                await self.end()
            # An instance that is cut off for as long as a fact stands has to be started again.
            await self.other_folds()
            await self.world.flush()
        self.world.clock.at += passed_s
        self.log.expire()

    async def other_folds(self, _: int = 0) -> None:
        await self.other.step(await self.log.scan(self.other.board.sequence, 10_000))
        await self.other.flush()

    async def remove(self, which: int) -> None:
        await self.world.flush()
        await self.work(self.world.database, EAGER, which)

    async def other_removes(self, which: int) -> None:
        await self.work(self.other.database, EAGER, which)

    async def work(
        self, database: Database, limits: RemovalLimits, steps: int | None = None
    ) -> MemoryPurger:
        await self.note_owners()
        purger = MemoryPurger(self.log, steps)
        with suppress(Crash):
            work = Removals(self.log, database, self.world.clock, purger.note, limits)
            await work.work(purger)
        await self.check()
        return purger

    async def note_owners(self) -> None:
        for each in await self.log.scan(max(self.owners, default=0), 10_000):
            self.owners[each.sequence] = each.plan_id if isinstance(each, Fact) else "no plan"

    async def check(self) -> None:
        """What is gone was of forgotten plans; note and watch agree that nothing was lost."""
        state = await self.log.state()
        standing = {each.sequence for each in await self.log.scan(0, 10_000)}
        for sequence in self.owners.keys() - standing - self.chatter:
            tombstone, at = self.forgotten[self.owners[sequence]]
            is_free = at + FORGOTTEN_S < self.world.clock.at
            assert sequence < tombstone or (sequence == tombstone and is_free)
            assert sequence <= state.forgotten
        assert begins_late(state) is None
        for _ in range(2):
            await self.watch.look()
        assert self.missing == []

    async def left(self) -> set[str]:
        """The plans that the log has facts of, other than the one that forgets them."""
        found = [each for each in await self.log.scan(0, 10_000) if isinstance(each, Fact)]
        tombstones = {sequence for sequence, _ in self.forgotten.values()}
        return {each.plan_id for each in found if each.sequence not in tombstones}


@asynccontextmanager
async def a_story() -> AsyncIterator[tuple[Story, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        live, late = await open_read_models(path / "a"), await open_read_models(path / "b")
        try:
            world = World(live, path / "a")
            yield Story(world, world.projector_into(late, "other")), path
        finally:
            await live.close()
            await late.close()


async def ended_plans(story: Story, count: int) -> None:
    for _ in range(count):
        await story.begin()
        await story.end(-1)
    await story.world.flush()


async def forgotten_plans(story: Story, count: int) -> None:
    await ended_plans(story, count)
    for _ in range(count):
        await story.forget()
    await story.world.flush()
