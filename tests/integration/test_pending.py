"""What waits for a database that is locked is bounded in rows and in bytes, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import Raw

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.projector import PendingLimits, Projector
from projections.read_models import plans
from projections.read_models.database import Database
from projections.read_models.restore import SCHEMA
from streams.log import Draft
from streams.plan.events import Submitted, TaskSpec
from tests.locked_file import locked
from tests.memory_log import MemoryLog
from tests.waiting import eventually

PLANS = 300
INPUT = Raw(b'"' + b"x" * 20_000 + b'"')


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "read-models.sqlite"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(path, SCHEMA, busy_timeout_s=0.02)
    yield opened
    await opened.close()


async def submit(log: MemoryLog, count: int, task: TaskSpec) -> None:
    for number in range(count):
        plan = Submitted(tasks=(task,))
        await log.append(Draft(plan_id=f"p{number}", task_id=None, expected=0, events=(plan,)))


@pytest.mark.parametrize(
    ("limits", "task"),
    [
        (PendingLimits(rows=100), TaskSpec(id="t", kind="k")),
        (PendingLimits(bytes=1_000_000), TaskSpec(id="t", kind="k", input=INPUT)),
    ],
    ids=["rows", "bytes"],
)
async def test_the_fold_waits_for_a_locked_database_at_its_bound_and_loses_nothing(
    database: Database, path: Path, limits: PendingLimits, task: TaskSpec
) -> None:
    log = MemoryLog()
    board = Board(SharingRule(), "a")
    projector = Projector(
        log, board, database,
        epoch="memory-1", now=lambda: 0.0, observe_time=lambda _: None, limits=limits,
    )  # fmt: skip
    assert projector.too_far_behind is None
    loops = [asyncio.create_task(projector.run()), asyncio.create_task(projector.flush_forever())]
    try:
        async with locked(path):
            await submit(log, PLANS, task)
            await eventually(lambda: projector.flush_error is not None)
            await eventually(lambda: projector.too_far_behind is not None)
            await asyncio.sleep(0.1)  # it could have folded all of them
            assert board.sequence < PLANS
        assert await projector.flushed(PLANS, 20)
        assert projector.too_far_behind is None
        assert len((await plans.page(database, limit=200)).items) == 200
        assert board.sequence == PLANS
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops)
