"""The read models' file under trouble: locked, full, foreign, damaged, outdated, closed."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from projections.integrity.verify import compare
from projections.read_models.database import Database
from projections.read_models.pending import Pending
from projections.read_models.restore import SCHEMA, open_read_models, restore
from projections.read_models.sqlite_file import DatabaseUnavailable, MustRebuild, Schema, discard
from streams.plan.events import Cancelled, Claimed, Heartbeat, Submitted, TaskSpec
from streams.plan.evolve import begin, evolve
from streams.plan.state import Plan
from tests.integration.read_models_world import History, folded_into, plan_of, tasks_of
from tests.loop_time import LoopTime, longest_turn_s, watched

HELD_S = 0.02  # of the loop's processor time


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "read-models.sqlite"


@pytest.fixture
async def database(path: Path) -> AsyncGenerator[Database, None]:
    opened = await Database.open(path, SCHEMA, busy_timeout_s=0.05)
    yield opened
    await opened.close()


def some_plan(tasks: int = 3, sequence: int = 1) -> Plan:
    specs = tuple(TaskSpec(id=f"t{n}", kind="echo") for n in range(tasks))
    return begin(f"p{sequence}", Submitted(tasks=specs), sequence=sequence, at=1_000.0)


def pending_with(plan: Plan) -> Pending:
    pending = Pending(0, "e")
    pending.add(plan)
    pending.advance(plan.sequence)
    return pending


# -- trouble while it runs --------------------------------------------------------------------


async def test_a_flush_into_a_locked_file_fails_and_the_same_flush_succeeds_later(
    database: Database, path: Path
) -> None:
    plan = some_plan()
    pending = pending_with(plan)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="locked"):
            await pending.flush(database)
        assert await plan_of(database, "p1") is None, "readers do not wait for a writer"
        # The fold goes on while SQLite is locked.
        evolve(plan, "t1", Claimed(owner="w", attempt=1, lease_s=5), sequence=2, at=1_001.0)
        pending.add(plan)
        pending.advance(2)
        with pytest.raises(DatabaseUnavailable, match="locked"):
            await pending.flush(database)
        other.execute("ROLLBACK")
    assert pending.flushed == 0
    assert await pending.flush(database) == 2
    assert len(pending) == 0
    [restored] = await restore(database)
    assert restored.tasks["t1"].status == "RUNNING"
    assert restored.tasks["t1"].execution == plan.tasks["t1"].execution
    assert await database.checkpoint() is not None


async def test_a_full_disk_leaves_nothing_half_written(database: Database) -> None:
    [(pages,)] = await database.writer.execute_fetchall("PRAGMA page_count")
    await database.writer.execute_fetchall(f"PRAGMA max_page_count={pages + 2}")
    pending = pending_with(some_plan(tasks=2_000))
    with pytest.raises(DatabaseUnavailable, match="full"):
        await pending.flush(database)
    assert await plan_of(database, "p1") is None
    assert await database.checkpoint() is None
    await database.writer.execute_fetchall("PRAGMA max_page_count=100000")
    await pending.flush(database)
    assert len(await tasks_of(database, "p1")) == 2_000


async def test_a_cancelled_flush_loses_nothing(database: Database, path: Path) -> None:
    history = History()
    for number in range(0, 1_500, 3):
        history.choose(number)
    pending = Pending(0, "e")
    for plan in history.plans.values():
        pending.add(plan)
    pending.advance(len(history.facts))
    for hops in range(12):
        flush = asyncio.create_task(pending.flush(database))
        for _ in range(hops):
            await asyncio.sleep(0)
        flush.cancel()
        await asyncio.gather(flush, return_exceptions=True)
        if not len(pending):
            break
    await pending.flush(database)
    whole = await folded_into(path.with_name("whole.sqlite"), history.facts)
    await whole.close()
    assert compare(path, path.with_name("whole.sqlite")).differences == []


async def test_heartbeats_do_not_rewrite_executions(database: Database) -> None:
    plan = some_plan()
    pending = pending_with(plan)
    evolve(plan, "t0", Claimed(owner="w", attempt=1, lease_s=5), sequence=2, at=1_001.0)
    pending.add(plan)
    pending.advance(2)
    await pending.flush(database)
    evolve(plan, "t0", Heartbeat(owner="w", attempt=1, lease_s=5), sequence=3, at=1_002.0)
    pending.add(plan)
    pending.advance(3)
    assert len(pending) == 2, "the plan and the task"


async def test_a_query_that_takes_too_long_is_ended_and_its_reader_is_free_again(
    database: Database,
) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    for _ in range(4):  # more often than there are readers
        with pytest.raises(DatabaseUnavailable, match="took too long"):
            await database.read(endless, (), lambda _, row: row, within_s=0.02)
    assert await plan_of(database, "p1") is None


async def test_a_closed_database_raises(path: Path) -> None:
    database = await open_read_models(path)
    await database.close()
    await database.close()
    with pytest.raises(DatabaseUnavailable):
        await plan_of(database, "p1")
    with pytest.raises(DatabaseUnavailable):
        await pending_with(some_plan()).flush(database)


async def test_building_five_thousand_views_does_not_hold_the_loop(database: Database) -> None:
    await pending_with(some_plan(tasks=5_000)).flush(database)

    async def story(_: int) -> LoopTime:
        async with watched(pause_s=0.001) as loop_time:  # else the reader waits for its thread
            assert len(await tasks_of(database, "p1")) == 5_000
        return loop_time

    assert await longest_turn_s(story, HELD_S) < HELD_S


# -- opening ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [SCHEMA.version - 1, SCHEMA.version + 1])
async def test_a_file_of_another_schema_must_be_rebuilt(path: Path, version: int) -> None:
    other = await Database.open(path, Schema(version=version, ddl="CREATE TABLE x (y);"))
    await other.close()
    with pytest.raises(MustRebuild, match=f"schema {version}"):
        await open_read_models(path)
    discard(path)
    database = await open_read_models(path)
    assert await database.checkpoint() is None
    await database.close()


async def test_a_damaged_file_must_be_rebuilt(path: Path) -> None:
    await asyncio.to_thread(path.write_bytes, b"not a database, certainly " * 100)
    with pytest.raises(MustRebuild, match="damaged"):
        await open_read_models(path)


async def test_a_file_of_another_program_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE precious (data)")
        other.commit()
    with pytest.raises(DatabaseUnavailable, match="not a database of Holdfast"):
        await open_read_models(path)


async def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="opening"):
        await open_read_models(tmp_path / "nowhere" / "x.sqlite")


async def test_what_was_written_is_there_when_it_is_opened_again(path: Path) -> None:
    database = await open_read_models(path)
    await pending_with(some_plan()).flush(database)
    await database.close()
    again = await open_read_models(path)
    checkpoint = await again.checkpoint()
    await again.close()
    assert checkpoint is not None
    assert (checkpoint.sequence, checkpoint.epoch) == (1, "e")


async def test_a_large_flush_needs_no_temporary_file(database: Database) -> None:
    """A service on a read-only root may have no temporary folder; SQLite names its files etilqs."""
    plan = some_plan(tasks=5_000)
    pending = pending_with(plan)
    await pending.flush(database)
    evolve(plan, None, Cancelled(), sequence=2, at=1_001.0)
    pending.add(plan)
    pending.advance(2)
    flushing = asyncio.create_task(pending.flush(database))
    seen: set[str] = set()
    while not flushing.done():
        seen |= await asyncio.to_thread(temporary_files)
    assert seen == set()
    assert await flushing == 2


def temporary_files() -> set[str]:
    """The temporary files of SQLite that this process has open now."""
    found: set[str] = set()
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found |= {name} if "etilqs" in (name := str(each.readlink())) else set()
    return found
