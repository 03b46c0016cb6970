"""What waits to be written is bounded in rows and in bytes, and nothing of it is lost."""

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.board.recent import RecentLimits
from projections.changed_plans import MOST_BYTES
from projections.integrity.verify import compare
from projections.projector import SLICE, PendingLimits, Projector
from projections.read_models import plans
from projections.read_models.database import Database
from projections.read_models.pending import WIDE
from projections.read_models.restore import SCHEMA
from streams.log import Appended, Draft, Log
from streams.plan import commands
from streams.plan.events import Cancelled, Finished, Submitted, TaskSpec
from streams.plan.state import Plan
from tests.locked_file import locked
from tests.memory_log import MemoryLog
from tests.unit.claim_story import Instance, LogTime
from tests.unit.plan_story import task
from tests.waiting import eventually

PLANS = 300
INPUT = Raw(b'"' + b"x" * 20_000 + b'"')
LARGE = Raw(b'"' + b"x" * 200_000 + b'"')


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "read-models.sqlite"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(path, SCHEMA, busy_timeout_s=0.02)
    yield opened
    await opened.close()


def projector_of(
    log: Log,
    database: Database,
    limits: PendingLimits = PendingLimits(),  # noqa: B008 - it is frozen
    recent: RecentLimits | None = None,
) -> Projector:
    board = Board(SharingRule(), "a", recent=recent)
    return Projector(
        log, board, database,
        epoch="memory-1", now=lambda: 0.0, observe_times=lambda _: None, limits=limits,
    )  # fmt: skip


async def submit(log: MemoryLog, count: int, spec: TaskSpec) -> None:
    for number in range(count):
        plan = Submitted(tasks=(spec,))
        await log.append(Draft(plan_id=f"p{number}", task_id=None, expected=0, events=(plan,)))


@pytest.mark.parametrize(
    ("limits", "spec"),
    [
        (PendingLimits(rows=100), TaskSpec(id="t", kind="k")),
        (PendingLimits(bytes=1_000_000), TaskSpec(id="t", kind="k", input=INPUT)),
    ],
    ids=["rows", "bytes"],
)
async def test_the_fold_waits_for_a_locked_database_at_its_bound_and_loses_nothing(
    database: Database, path: Path, limits: PendingLimits, spec: TaskSpec
) -> None:
    log = MemoryLog()
    projector = projector_of(log, database, limits)
    assert projector.too_far_behind is None
    loops = [asyncio.create_task(projector.run()), asyncio.create_task(projector.flush_forever())]
    try:
        async with locked(path):
            await submit(log, PLANS, spec)
            await eventually(lambda: projector.flush_error is not None)
            await eventually(lambda: projector.too_far_behind is not None)
            await asyncio.sleep(0.1)  # it could have folded all of them
            assert projector.board.sequence < PLANS
        assert await projector.flushed(PLANS, 20)
        assert projector.too_far_behind is None
        assert len((await plans.page(database, limit=200)).items) == 200
        assert projector.board.sequence == PLANS
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops)


async def test_a_flush_that_is_cancelled_while_rows_are_made_loses_none(database: Database) -> None:
    log = MemoryLog()
    many = tuple(TaskSpec(id=f"t{n}", kind="k") for n in range(WIDE + 1))  # made in a thread
    await log.append(Draft(plan_id="p", task_id=None, expected=0, events=(Submitted(tasks=many),)))
    projector = projector_of(log, database)
    await projector.step(await log.scan(0, 10))
    flushing = asyncio.create_task(projector.flush())
    await asyncio.sleep(0)  # the flush begins,
    await asyncio.sleep(0)  # and so does the thread
    flushing.cancel()
    await asyncio.wait([flushing])
    await projector.flush()
    found = await database.read("SELECT count(*) FROM tasks", (), lambda _, row: row[0])
    assert found == [WIDE + 1]


OWNER: dict[str, Any] = {"plan_id": "p", "task_id": "t", "owner": "w"}
FAIL: dict[str, Any] = {"error_type": "e", "retryable": False}


async def test_a_plan_that_left_memory_and_came_back_between_two_flushes_has_all_its_rows(
    database: Database, path: Path, tmp_path: Path
) -> None:
    log = MemoryLog(clock := LogTime())
    writer = Instance(log, clock)
    for plan_id in ("p", "q"):
        words: dict[str, Any] = OWNER | {"plan_id": plan_id}
        other_task: dict[str, Any] = words | {"task_id": "u"}
        await writer.submit(plan_id, task("t"), task("u"))
        await writer.say(commands.Claim(**other_task))
        await writer.say(commands.Complete(**other_task, attempt=1))
        await writer.say(commands.Claim(**words))
        await writer.say(commands.Fail(**words, attempt=1, **FAIL))
        await writer.say(commands.Finish(plan_id=plan_id))
    await writer.say(commands.Retry(plan_id="p", task_id="t"))
    await writer.say(commands.Claim(**OWNER))
    facts = await log.scan(0, 100)
    projector = projector_of(log, database, recent=RecentLimits(tasks=1))
    for fact in facts:
        await projector.step([fact])
    await projector.flush()
    other = await Database.open(tmp_path / "other.sqlite", SCHEMA)
    at_once = projector_of(log, other)
    for fact in facts:
        await at_once.step([fact])
        await at_once.flush()
    await other.close()
    found = await asyncio.to_thread(compare, path, tmp_path / "other.sqlite")
    assert found.rows > 0
    assert found.differences == []


def plans_in_memory() -> int:
    gc.collect()
    return sum(type(each) is Plan for each in gc.get_objects())


async def test_plans_that_have_left_memory_wait_for_their_rows_within_the_bound(
    database: Database,
) -> None:
    others = plans_in_memory()  # of tests that went before in this process
    log = MemoryLog()
    await submit(log, PLANS, TaskSpec(id="t", kind="k", input=LARGE))
    projector = projector_of(log, database, recent=RecentLimits(tasks=1))
    await projector.step(await log.scan(0, PLANS))
    await projector.flush()
    for number in range(PLANS):
        ending = (Cancelled(), Finished(status="CANCELLED"))
        draft = Draft(plan_id=f"p{number}", task_id=None, expected=number + 1, events=ending)
        assert isinstance(await log.append(draft), Appended)
    await projector.step(await log.scan(PLANS, 2 * PLANS))
    assert not projector.board.plans
    assert plans_in_memory() - others < MOST_BYTES / len(LARGE) + SLICE
    await projector.flush()
    found = await database.read("SELECT count(*) FROM plans", (), lambda _, row: row[0])
    assert found == [PLANS]
