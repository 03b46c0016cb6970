"""What is removed of forgotten plans, in any order and with any crash, changes no view."""

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.integrity.verify import compare
from projections.log_identity import LogWatch, begins_late
from projections.projector import Projector
from projections.read_models import plans
from projections.read_models.database import Database
from projections.read_models.forgetting import to_remove
from projections.read_models.restore import open_read_models
from service.daemons.removals import RemovalLimits, Removals
from streams.log import Appended, Draft, Fact
from streams.plan import commands
from streams.plan.events import Forgotten, Raw, Submitted, TaskSpec
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
            self.owners[each.sequence] = each.plan_id if isinstance(each, Fact) else "nobody"

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
            other = Projector(
                world.log,
                Board(SharingRule(), "other"),
                late,
                epoch=world.log.epoch,
                now=world.clock,
                observe_times=lambda _: None,
            )
            yield Story(world, other), path
        finally:
            await live.close()
            await late.close()


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    async with a_story() as (told, _):
        yield told


Step = Callable[[Story, int], Awaitable[object]]
OFTEN: list[Step] = [
    *(Story.begin, Story.beat, Story.end, Story.end, Story.forget, Story.forget),
    *(Story.one_more, Story.one_more, Story.later, Story.other_folds),
]
REMOVING: list[Step] = [Story.remove, Story.other_removes]
steps = st.tuples(
    st.sampled_from([*OFTEN, *OFTEN, Story.rubbish, *REMOVING, *REMOVING]), st.integers(0, 11)
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(chosen=st.lists(steps, min_size=20, max_size=80))
@pytest.mark.timeout(120)
def test_a_rebuild_equals_live_whatever_is_removed_and_wherever_it_stops(
    chosen: list[tuple[Step, int]],
) -> None:
    asyncio.run(tell(chosen))


async def tell(chosen: list[tuple[Step, int]]) -> None:
    async with a_story() as (story, folder):
        for step, which in chosen:
            await step(story, which)
            if step in REMOVING:
                assert await story.world.differences(folder) == []
        await story.other_folds()
        await story.world.flush()
        assert compare(folder / "a", folder / "b").differences == []
        # Nothing is left over for ever: what was forgotten goes within its time.
        story.world.clock.at += 2 * WAIT_S
        await story.work(story.world.database, LIMITS)
        assert not await story.left() & story.forgotten.keys()
        assert await story.world.differences(folder) == []


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


async def test_the_beginning_goes_in_one_purge_up_to_the_first_plan_that_is_kept(
    story: Story,
) -> None:
    await forgotten_plans(story, 3)
    kept = await story.begin()
    await forgotten_plans(story, 1)
    limits = replace(LIMITS, together=4, read=1_000)

    purger = await story.work(story.world.database, limits)

    tombstones = [sequence for sequence, _ in story.forgotten.values()]
    assert purger.beginnings == [tombstones[0]]  # which stands for a week
    assert (await story.log.state()).forgotten == tombstones[0] - 1
    assert purger.alone == []
    story.world.clock.at += FORGOTTEN_S + 2 * WAIT_S
    purger = await story.work(story.world.database, limits)
    first = await story.log.first_of(kept)
    assert first is not None
    assert purger.beginnings == [first.sequence]
    assert purger.alone == ["p4"]  # behind it; the last message of the log stays
    assert await story.left() == {kept}


async def test_facts_are_missing_up_to_where_a_plan_reaches_of_which_some_are(story: Story) -> None:
    await ended_plans(story, 1)
    partly = await story.begin()
    kept = await story.begin()
    await story.end(0)
    await story.world.flush()
    reach = (await story.log.state()).head
    for _ in ("p0", partly):
        await story.forget()
    await story.world.flush()

    purger = await story.work(story.world.database, EAGER)

    first = await story.log.first_of(kept)
    assert first is not None
    assert purger.beginnings == [first.sequence]
    assert (await story.log.state()).forgotten == reach
    assert [each.tombstone.plan_id for each in await to_remove(story.world.database, 10)] == [
        partly
    ]


async def test_a_beginning_is_read_up_to_a_bound_and_a_plan_behind_it_is_not_written_down_as_gone(
    story: Story,
) -> None:
    await forgotten_plans(story, 5)
    limits = replace(LIMITS, together=5, read=10, page=4)
    purger = await story.work(story.world.database, limits)
    assert purger.beginnings == [12]  # the last fact of the third plan
    assert len(await to_remove(story.world.database, 10)) == 3
    story.world.clock.at += WAIT_S + 1
    await story.work(story.world.database, limits)
    assert await story.left() == set()


async def test_a_fact_that_forgets_and_is_in_no_list_stays(story: Story) -> None:
    await forgotten_plans(story, 2)
    story.world.clock.at += FORGOTTEN_S + 1
    database, unlisted = story.world.database, story.forgotten["p0"][0]
    story.names = itertools.count()  # the id is free again
    await forgotten_plans(story, 1)
    await database.write([("DELETE FROM forgotten WHERE sequence = ?", [(unlisted,)])])
    purger = MemoryPurger(story.log)
    work = Removals(story.log, database, story.world.clock, purger.note, replace(EAGER, read=100))
    await work.work(purger)
    assert purger.beginnings == [unlisted]


@pytest.mark.parametrize(
    "subject", ["plans.ghost", "plans.ghost.t", "plans.p0.a", "plans.p0.a.b", "plans.p0.b"]
)
async def test_what_cannot_be_read_or_is_of_no_plan_stays_and_holds_nothing_up(
    story: Story, subject: str
) -> None:
    await ended_plans(story, 4)
    strange = story.log.publish(subject, b"{")
    limits = replace(LIMITS, worth=1, read=1_000)
    for name in ("p0", "p1", "p2", "p3"):
        last = await story.log.last_of(name)
        assert last is not None
        # As read before the strange message came.
        draft = Draft(plan_id=name, task_id=None, expected=last.sequence, events=(Forgotten(),))
        outcome = await story.log.append(draft)
        assert isinstance(outcome, Appended)
        story.forgotten[name] = (outcome.sequence, story.world.clock.at)
    story.ended.clear()
    await story.world.flush()

    purger = await story.work(story.world.database, limits)

    assert (purger.beginnings, purger.alone) == ([strange], [])
    await forgotten_plans(story, 4)
    purger = await story.work(story.world.database, limits)
    assert (purger.beginnings, purger.alone) == ([], ["p4", "p5", "p6", "p7"])
    story.world.clock.at += FORGOTTEN_S
    await story.begin()
    await story.world.flush()
    await story.work(story.world.database, limits)
    (first,) = await story.log.scan(0, 1)
    assert first.sequence == strange
    assert not story.forgotten.keys() & await story.left()


async def test_few_plans_wait_for_a_moment_and_then_go_alone(story: Story) -> None:
    await forgotten_plans(story, 1)
    await story.begin()
    purger = await story.work(story.world.database, LIMITS)
    assert (purger.beginnings, purger.alone) == ([], [])
    story.world.clock.at += WAIT_S + 1
    purger = await story.work(story.world.database, LIMITS)
    assert (purger.beginnings, purger.alone) == ([], ["p0"])


async def test_a_beginning_that_another_instance_removed_is_settled_without_a_purge(
    story: Story,
) -> None:
    await forgotten_plans(story, 4)
    await story.other_folds()
    limits = replace(LIMITS, read=1_000)
    assert (await story.work(story.world.database, limits)).beginnings
    purger = await story.work(story.other.database, limits)
    assert (purger.beginnings, purger.alone) == ([], [])
    # It has seen no more than that they were forgotten: the log is asked what is left of them.
    story.world.clock.at += WAIT_S + 1
    purger = await story.work(story.other.database, limits)
    assert (purger.beginnings, purger.alone) == ([], [])
    assert await to_remove(story.other.database, 10) == []


async def test_a_plan_that_this_instance_does_not_know_as_forgotten_stays(story: Story) -> None:
    """Its rows may be wrong; one purge must not take with it what they do not know."""
    await forgotten_plans(story, 4)
    database = story.world.database
    await database.write([("DELETE FROM forgotten WHERE plan_id = ?", [("p2",)])])
    limits = replace(LIMITS, together=3, worth=1, read=1_000)
    await story.note_owners()
    first = await story.log.first_of("p2")
    assert first is not None

    purger = await story.work(database, limits)

    assert purger.beginnings == [first.sequence]
    assert "p2" in await story.left()


async def test_rows_of_another_log_remove_no_beginning(story: Story) -> None:
    await forgotten_plans(story, 4)
    checkpoint = await story.world.database.checkpoint()
    assert checkpoint is not None
    await story.world.database.write([], replace(checkpoint, epoch="another"))
    purger = await story.work(story.world.database, replace(LIMITS, read=1_000))
    assert purger.beginnings == []
