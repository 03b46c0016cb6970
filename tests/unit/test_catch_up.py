"""A refusal is judged on a state at least as new as the log was when the request came.

The instance under test folds by a real projector, whose tail may bring news at any await: also
between the first judgement and the answer of the log about its head.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.board.places import WIDE
from projections.board.recent import RecentLimits
from projections.projector import Projector
from streams.decider import CommandAccepted, Outcome, transact
from streams.log import BadFact, Fact, LogState, Origin
from streams.plan import commands
from streams.plan.decisions import Duplicate, GuardReject
from streams.plan.state import Plan
from tests.memory_log import MemoryLog
from tests.unit.claim_story import Instance, LogTime
from tests.unit.plan_story import task
from tests.waiting import eventually


class LateLog(MemoryLog):
    """Its answer about the head is on the way for a while, and its tail can be held up."""

    def __init__(self, clock: LogTime) -> None:
        super().__init__(clock)
        self.flows = asyncio.Event()
        self.flows.set()
        self.reads: list[asyncio.Event] = []  # each read of a plan waits for the next of these

    async def state(self) -> LogState:
        found = await super().state()
        self.flows.set()
        for _ in range(10):
            await asyncio.sleep(0)
        return found

    async def read(self, plan_id: str, task_id: str | None = None, **bounds: Any) -> list:  # type: ignore[type-arg]
        found = await super().read(plan_id, task_id, **bounds)
        if self.reads:
            await self.reads.pop(0).wait()
        return found

    async def follow(self, after: int) -> AsyncIterator[list]:  # type: ignore[type-arg]
        async for batch in super().follow(after):
            await self.flows.wait()
            yield batch


class Follower:
    """An instance that folds what the tail brings, when the tail brings it."""

    def __init__(self, log: MemoryLog, clock: LogTime) -> None:
        self.log, self.now = log, clock
        self.projector = Projector(
            log,
            Board(SharingRule(), "b", recent=RecentLimits(tasks=1)),
            None,  # type: ignore[arg-type]  # nothing is flushed here
            epoch="memory-1",
            now=clock,
            observe_times=lambda _: None,
        )
        self.load = self.projector.load
        self.folded = self.projector.folded
        self.catch_up = self.projector.catch_up
        self.why_ignored = self.projector.board.ignored.get

    def knows(self, plan_id: str) -> Plan | None:
        return self.projector.board.knows(plan_id)

    async def say(self, command: commands.Command) -> Outcome:
        return await transact(command, self, self.log, Origin(instance="b"))


class Two:
    """Instance a writes; instance b follows, and hears of it late."""

    def __init__(self) -> None:
        clock = LogTime()
        self.log = LateLog(clock)
        self.a = Instance(self.log, clock, "a")
        self.b = Follower(self.log, clock)

    async def fail(self, plan_id: str, attempt: int = 1) -> None:
        """Let the plan's only task fail for good, and the plan finish; b has folded that."""
        whose: dict[str, Any] = {"plan_id": plan_id, "task_id": "t", "owner": "w"}
        if plan_id != "p":
            await self.a.submit(plan_id, task("t", max_retries=0))
        assert isinstance(await self.a.say(commands.Claim(**whose)), CommandAccepted)
        failed = commands.Fail(
            **whose, attempt=attempt, error_type="tool_error", error_message="", retryable=False
        )
        for command in (failed, commands.Finish(plan_id=plan_id)):
            assert isinstance(await self.a.say(command), CommandAccepted)
        await self.b.catch_up()

    async def late(self, command: commands.Command) -> None:
        """Instance a writes what reaches b only after b has judged for the first time."""
        await self.b.catch_up()
        self.log.flows.clear()
        assert isinstance(await self.a.say(command), CommandAccepted)


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    two = Two()
    following = asyncio.create_task(two.b.projector.run())
    await two.a.submit("p", task("t", lease_s=60))
    yield two
    following.cancel()
    await asyncio.wait([following])


OWNER: dict[str, Any] = {"plan_id": "p", "task_id": "t", "owner": "w"}


async def test_the_holder_is_not_refused_where_its_claim_arrives_late(two: Two) -> None:
    await two.late(commands.Claim(**OWNER))
    assert isinstance(await two.b.say(commands.Start(**OWNER, attempt=1)), CommandAccepted)


async def test_a_resume_after_a_pause_that_arrives_late_is_written(two: Two) -> None:
    await two.late(commands.Pause(plan_id="p"))
    assert isinstance(await two.b.say(commands.Resume(plan_id="p")), CommandAccepted)
    plan = two.b.knows("p")
    assert plan is not None
    assert plan.status == "READY"


async def test_a_start_is_no_repetition_where_another_has_taken_the_lease_over(two: Two) -> None:
    assert isinstance(await two.a.say(commands.Claim(**OWNER)), CommandAccepted)
    assert isinstance(await two.a.say(commands.Start(**OWNER, attempt=1)), CommandAccepted)
    assert isinstance(await two.b.say(commands.Start(**OWNER, attempt=1)), Duplicate)
    await two.late(commands.Release(**OWNER, attempt=1))
    assert isinstance(await two.b.say(commands.Start(**OWNER, attempt=1)), GuardReject)


async def test_facts_that_the_tail_holds_up_are_read_and_counted_once(two: Two) -> None:
    two.log.flows.clear()
    two.log.state = super(LateLog, two.log).state  # type: ignore[method-assign]  # stays held up
    assert isinstance(await two.a.say(commands.Claim(**OWNER)), CommandAccepted)
    await two.b.catch_up()
    plan, board = two.b.knows("p"), two.b.projector.board
    assert plan is not None
    assert plan.tasks["t"].status == "RUNNING"
    two.log.flows.set()
    assert isinstance(await two.b.say(commands.Start(**OWNER, attempt=1)), CommandAccepted)
    assert not board.ignored, "what the tail brings again is left out"


async def test_a_request_that_ends_leaves_no_fold_half_done(two: Two) -> None:
    """Else events of the facts that it had folded would be missing on every stream."""
    two.log.flows.clear()
    two.log.state = super(LateLog, two.log).state  # type: ignore[method-assign]  # stays held up
    projector, told = two.b.projector, list[int]()
    projector.listeners.add_for_batches(
        "test", lambda batch: told.extend(fact.sequence for fact in batch.facts)
    )
    make, waiting = projector.preparation.make, asyncio.Event()

    async def slow(fact: Fact | BadFact) -> None:
        waiting.set()
        await asyncio.sleep(0.05)
        await make(fact)

    projector.preparation.make = slow  # type: ignore[method-assign]
    for number in range(3):
        wide = WIDE + 1 if number == 1 else 1
        await two.a.submit(f"q{number}", *(task(f"t{each}") for each in range(wide)))
    asking = asyncio.create_task(two.b.catch_up())
    await waiting.wait()
    asking.cancel()
    await asyncio.wait([asking])
    await eventually(lambda: projector.board.sequence == 4)
    two.log.flows.set()
    await two.b.catch_up()
    assert told[-3:] == [2, 3, 4]


async def test_a_plan_that_finishes_again_while_it_is_recalled_is_not_kept_as_it_was(
    two: Two,
) -> None:
    """An older state that was kept would stay wrong: no fact that it lacks comes again."""
    released = asyncio.Event()
    await two.fail("p")
    await two.fail("q")  # the board of b forgets p
    two.log.reads.append(released)
    asking = asyncio.create_task(two.b.say(commands.Retry(plan_id="p", task_id="t")))
    await eventually(lambda: not two.log.reads)
    assert isinstance(await two.a.say(commands.Retry(plan_id="p", task_id="t")), CommandAccepted)
    await two.fail("p", attempt=2)
    await two.fail("r")
    assert two.b.knows("p") is None
    released.set()
    assert isinstance(await asking, CommandAccepted)
    plan = two.b.knows("p")
    assert plan is not None
    assert plan.tasks["t"].attempt == 2, "it is kept as of its second end"
