"""A forgotten plan is unknown everywhere, and a rebuild at any stage of its removal equals live."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.integrity.verify import compare
from projections.log_identity import LogWatch, Witness
from projections.projector import Projector
from projections.read_models import plans
from projections.read_models.database import Database
from projections.read_models.restore import open_read_models, read_models_of
from service.cli.refold import refold
from streams.decider import CommandAccepted, transact
from streams.log import Fact
from streams.plan import commands
from streams.plan.decisions import NotAllowed, PlanExists
from streams.plan.events import Completed, Forgotten, Raw, Submitted, TaskSpec
from streams.plan.limits import FORGOTTEN_S
from tests.integration.read_models_world import plan_of
from tests.memory_log import MemoryLog
from tests.unit.claim_story import Instance, LogTime

LARGE = Raw(b'"' + b"x" * 2_000 + b'"')
OWNER = {"task_id": "a", "owner": "w", "attempt": 1}


class World:
    """A log, an instance that writes to it, and a projector with a file of its own."""

    def __init__(self, database: Database, path: Path) -> None:
        self.clock = LogTime()
        self.log = MemoryLog(self.clock)
        self.writer = Instance(self.log, self.clock)
        self.path = path
        self.files = itertools.count()
        self.database = database
        self.projector = self.projector_into(database, "live")

    def projector_into(self, database: Database, instance_id: str) -> Projector:
        """A projector of the log, as an instance of that name has one."""
        return Projector(
            self.log,
            Board(SharingRule(), instance_id),
            database,
            epoch=self.log.epoch,
            now=self.clock,
            observe_times=lambda _: None,
        )

    async def say(self, command: commands.Command) -> int:
        outcome = await self.writer.say(command)
        assert isinstance(outcome, CommandAccepted), outcome
        return outcome.sequence

    async def submit(self, plan_id: str, label: str = "x") -> int:
        tasks = (TaskSpec(id="a", kind="echo"), TaskSpec(id="b", kind="echo", depends_on=("a",)))
        plan = Submitted(tasks=tasks, labels={"team": label})
        return await self.say(commands.Submit(plan_id=plan_id, plan=plan))

    async def run(self, plan_id: str) -> None:
        """Submit the plan and bring it to its end; task a kept a checkpoint and a large output."""
        await self.submit(plan_id)
        for task_id in ("a", "b"):
            whose = {**OWNER, "task_id": task_id, "plan_id": plan_id}
            await self.say(commands.Claim(plan_id=plan_id, task_id=task_id, owner="w"))
            await self.say(commands.Checkpoint(key="k", value=Raw(b"1"), **whose))
            await self.say(commands.Complete(output=LARGE, **whose))
        await self.say(commands.Finish(plan_id=plan_id))

    async def forget(self, plan_id: str) -> int:
        return await self.say(commands.Forget(plan_id=plan_id))

    async def flush(self) -> None:
        """Bring the live read models up to the head."""
        await self.projector.step(await self.log.scan(self.projector.board.sequence, 10_000))
        await self.projector.flush()

    async def differences(self, tmp_path: Path) -> list[str]:
        """How a rebuild from the log, as it is now, differs from the live rows."""
        await self.flush()
        fresh = tmp_path / f"fresh-{next(self.files)}.sqlite"
        rebuilt = await open_read_models(fresh)
        try:
            await refold(self.log, rebuilt, (await self.log.state()).head)
        finally:
            await rebuilt.close()
        return [str(each) for each in compare(self.path, fresh).differences]

    async def rows(self) -> dict[str, int]:
        tables = ("plans", "plan_specs", "plan_labels", "tasks", "task_specs", "outputs",
                  "checkpoints", "executions")  # fmt: skip
        count = "SELECT count(*) FROM "
        return {
            table: (await self.database.read(count + table, (), lambda _, row: row[0]))[0]
            for table in tables
        }


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    path = tmp_path / "live.sqlite"
    database = await open_read_models(path)
    yield World(database, path)
    await database.close()


async def test_a_rebuild_equals_live_at_every_stage_of_the_removal(
    world: World, tmp_path: Path
) -> None:
    await world.submit("kept")
    await world.run("gone")
    await world.flush()
    before = await world.rows()
    assert before["checkpoints"] == 0  # completed tasks keep none
    assert before["outputs"] == before["executions"] == 2
    assert await world.differences(tmp_path) == []

    tombstone = await world.forget("gone")

    assert await world.differences(tmp_path) == []  # all of its facts stand still
    assert await plan_of(world.database, "gone") is None
    assert world.projector.board.knows("gone") is None
    assert (await world.rows())["plans"] == 1
    facts = [each.sequence for each in await world.log.scan(0, 1_000, "gone")]
    own = {
        each.sequence
        for each in await world.log.scan(0, 1_000, "gone")
        if isinstance(each, Fact) and each.task_id is None and each.sequence < tombstone
    }
    half = set(facts[: len(facts) // 2])
    for removed in (own, own | half, {*facts} - {tombstone}, {*facts}):
        world.log.purge(removed.__contains__)
        assert await world.differences(tmp_path) == [], removed
    assert await world.rows() == {
        "plans": 1, "plan_specs": 1, "plan_labels": 2, "tasks": 2, "task_specs": 2,
        "outputs": 0, "checkpoints": 0, "executions": 0,
    }  # fmt: skip


async def test_one_flush_takes_a_plan_its_end_and_the_next_of_its_name(
    world: World, tmp_path: Path
) -> None:
    await world.run("p")
    tombstone = await world.forget("p")
    world.clock.at += FORGOTTEN_S
    second = await world.submit("p", label="second")

    await world.flush()

    found = await plan_of(world.database, "p")
    assert found is not None
    assert (found.labels, found.status) == ({"team": "second"}, "READY")
    assert (await world.rows())["tasks"] == 2
    assert await world.differences(tmp_path) == []
    world.log.purge(lambda sequence: sequence <= tombstone)
    assert await world.differences(tmp_path) == []
    restarted = Instance(world.log, world.clock)
    plan = await restarted.load("p")
    assert plan is not None
    assert plan.first_sequence == second


async def test_rows_removed_between_two_flushes_of_an_unfinished_looking_plan(
    world: World, tmp_path: Path
) -> None:
    """An instance that lags sees the beginning of a plan, and then only that it is forgotten."""
    await world.run("p")
    await world.projector.step((await world.log.scan(0, 1_000))[:2])
    await world.projector.flush()
    assert world.projector.board.places.running_count == 1
    tombstone = await world.forget("p")
    world.log.purge(lambda sequence: sequence < tombstone)

    assert await world.differences(tmp_path) == []

    board = world.projector.board
    assert (board.places.running_count, board.places.claimable, board.plans, board.finishable) == (
        0, 0, {}, set()
    )  # fmt: skip
    assert board.unfinished.total == 0


async def test_the_id_is_free_again_after_a_week_whether_or_not_the_fact_still_stands(
    world: World,
) -> None:
    await world.run("p")
    tombstone = await world.forget("p")
    for log_has_its_facts in (True, False):
        if not log_has_its_facts:
            world.log.purge(lambda sequence: sequence < tombstone)
        plan = Submitted(tasks=(TaskSpec(id="a", kind="echo"),))
        refused = await world.writer.say(commands.Submit(plan_id="p", plan=plan))
        assert isinstance(refused, PlanExists)
        assert "was forgotten; it can be used again from 1970-01-08T00:16:40Z on" in refused.detail

    world.clock.at += FORGOTTEN_S
    other = Instance(world.log, world.clock, "other")
    first = await other.say(commands.Submit(plan_id="p", plan=plan))
    assert isinstance(first, CommandAccepted)
    await world.writer.fold()
    await world.say(commands.Claim(plan_id="p", task_id="a", owner="w"))


async def test_only_a_plan_that_has_ended_is_forgotten(world: World) -> None:
    await world.submit("p")
    refused = await world.writer.say(commands.Forget(plan_id="p"))
    assert isinstance(refused, NotAllowed)


async def test_a_task_of_a_forgotten_plan_takes_no_writes(world: World) -> None:
    await world.run("p")
    late = Instance(world.log, world.clock, "late")
    await late.fold()
    await world.forget("p")
    command = commands.Complete(output=Raw(b"2"), plan_id="p", **OWNER)
    outcome = await transact(command, late, world.log)
    assert "there is no plan" in str(outcome)
    head = (await world.log.state()).head
    facts = await world.log.scan(0, 1_000)
    assert not any(isinstance(f, Fact) and isinstance(f.event, Completed) for f in facts[head:])


async def test_read_models_that_miss_forgotten_facts_are_folded_anew(
    world: World,
) -> None:
    await world.submit("kept")
    await world.flush()
    reached = world.projector.flushed_sequence
    state = await world.log.state()

    async def settled(_: int) -> object:
        raise AssertionError("the log is long enough")

    await world.submit("meanwhile")
    for forgotten, goes_on_at in ((reached, reached), (reached + 1, 0)):
        world.log.forgotten = forgotten
        state = await world.log.state()
        found, sequence = await read_models_of(world.path, state, settled, world.log)  # type: ignore[arg-type]
        await found.close()
        assert sequence == goes_on_at


async def test_a_missing_fact_is_reported_unless_it_may_have_been_forgotten(world: World) -> None:
    await world.run("p")
    await world.flush()
    tombstone = await world.forget("p")
    witness = Witness(tombstone - 1, "id", 0.0)
    reported = list[str]()
    watch = LogWatch(
        world.log,
        lambda: witness,
        lambda _: plans.oldest(world.database),
        on_missing=reported.append,
        on_other=lambda _: None,
    )
    world.log.purge(lambda sequence: 1 < sequence < tombstone)

    await watch.look()
    assert len(reported) == 1

    world.log.forgotten = tombstone - 1
    await watch.look()
    assert len(reported) == 1
    world.log.purge(lambda sequence: sequence < tombstone)
    for _ in range(2):
        await watch.look()
    assert len(reported) == 2
    assert "was not forgotten" in reported[1]  # the rows have not seen the fact that forgets it
    await world.flush()
    await watch.look()
    assert len(reported) == 2


def test_a_forgotten_fact_says_nothing_but_that() -> None:
    assert Forgotten.__struct_fields__ == ()
