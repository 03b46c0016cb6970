"""Reads stay whole, bounded and possible, whatever stands in a row or happens to a reader."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from msgspec.json import encode

from projections.integrity.write_probe import DatabaseProbe
from projections.read_models import audit, executions, plans, task_views
from projections.read_models.database import READERS, Database
from projections.read_models.pending import Pending
from projections.read_models.restore import open_read_models
from projections.read_models.sqlite_file import DatabaseUnavailable, discard
from streams.plan.events import Claimed, Completed, Submitted, TaskSpec
from streams.plan.evolve import begin, evolve
from streams.plan.state import Plan
from tests.integration.read_models_world import tasks_of

KB = 1_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "read-models.sqlite"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    opened = await open_read_models(path)
    yield opened
    await opened.close()


def plan_of(count: int, input_bytes: int = 2, sequence: int = 1) -> Plan:
    """A plan whose tasks are COMPLETED with outputs as large as their inputs."""
    blob = Raw(b'"' + b"x" * (input_bytes - 2) + b'"')
    specs = tuple(TaskSpec(id=f"t{n}", kind="echo", input=blob) for n in range(count))
    plan = begin(f"p{sequence}", Submitted(tasks=specs), sequence=sequence, at=1_000.0)
    for spec in specs:
        sequence += 1
        claim = Claimed(owner="w", attempt=1, lease_s=5)
        evolve(plan, spec.id, claim, sequence=sequence, at=1_001.0)
        sequence += 1
        done = Completed(owner="w", attempt=1, output=blob)
        evolve(plan, spec.id, done, sequence=sequence, at=1_002.0)
    return plan


async def keep(database: Database, *some: Plan) -> None:
    pending = Pending(0, "e")
    for plan in some:
        pending.add(plan)
    pending.advance(1_000_000)
    await pending.flush(database)


def edit(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


# -- what cannot be shown ---------------------------------------------------------------------


def raises(_: sqlite3.Cursor, row: tuple[Any, ...]) -> None:
    raise ValueError(f"row {row[0]} cannot be shown")


async def test_a_row_that_raises_fails_its_own_query_only(database: Database) -> None:
    two = "SELECT value FROM (SELECT 1 AS value UNION ALL SELECT 2)"
    for _ in range(2 * READERS):
        with pytest.raises(DatabaseUnavailable, match="row 1 cannot be shown"):
            await database.read(two, (), raises)
    for _ in range(2 * READERS):
        assert await database.read(two, (), lambda _, row: row[0]) == [1, 2]


async def test_the_probe_notices_readers_that_do_not_answer_and_tables_that_are_gone(
    database: Database, path: Path
) -> None:
    probe = await DatabaseProbe.open(path, database)
    await probe.ask()
    busy = threading.Event()
    stuck = [
        asyncio.create_task(database.run(lambda _: busy.wait(20), within_s=30))
        for _ in range(READERS)
    ]
    with pytest.raises(DatabaseUnavailable, match="has not answered"):
        await probe.ask()
    busy.set()
    await asyncio.gather(*stuck)
    await probe.ask()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE executions")
    with pytest.raises(DatabaseUnavailable, match="no such table: executions"):
        await probe.ask()
    await probe.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tasks SET claimable_at = 1.8e12, updated_at = 1e300 WHERE task_id = 't1'",
        "UPDATE tasks SET result = x'ff' WHERE task_id = 't1'",
        "UPDATE task_specs SET spec = 'no JSON' WHERE ordinal % 2 = 1 AND ordinal % 4 <> 3",
        "UPDATE plan_specs SET spec = '[]'",
        "UPDATE plans SET counts = x''",
        "UPDATE executions SET token_usage = '7', finished_at = -1e300 WHERE fencing_token = 4",
    ],
)
async def test_a_bad_row_is_shown_as_such_and_hides_no_other(
    database: Database, path: Path, statement: str
) -> None:
    await keep(database, plan_of(3))
    edit(path, statement)
    found = await task_views.plan_detail(database, "p1")
    assert found is not None
    plan, its_tasks = found
    listed = (await task_views.page(database)).items
    runs = (await executions.page(database)).items
    assert [view.task_id for view in its_tasks] == ["t0", "t1", "t2"]
    assert [view.task_id for view in listed] == ["t2", "t1", "t0"]
    assert [run.task_id for run in runs] == ["t2", "t1", "t0"]
    assert (await plans.page(database)).items == [plan]
    assert plan.plan_id == "p1"
    shown = json.loads(encode([plan, listed, runs]))  # and it can be sent
    reasons = [view for view in (shown[0], *shown[1], *shown[2]) if "unreadable" in view]
    assert len(reasons) == (0 if "claimable_at" in statement else 1)
    for number in range(3):
        detail = await task_views.task_detail(database, "p1", f"t{number}")
        assert detail is not None
        assert detail.executions_total == 1


async def test_a_bad_audit_entry_is_shown_as_such(database: Database, path: Path) -> None:
    entries = [audit.Entry(at=1.0, event=f"e{n}", class_="always") for n in range(3)]
    rows = [audit.row(n, f"id{n}", encode(entry)) for n, entry in enumerate(entries, 1)]
    await audit.apply(database, rows, 3, "e")
    edit(path, "UPDATE audit SET entry = 'x' WHERE sequence = 2")
    items = (await audit.page(database)).items
    assert [item.event for item in items] == ["e2", "e1", "e0"]
    assert [bool(item.unreadable) for item in items] == [False, True, False]


# -- bounds in bytes --------------------------------------------------------------------------


async def test_lists_end_at_their_bytes_and_go_on_at_the_cursor(database: Database) -> None:
    await keep(database, plan_of(150, 60 * KB))
    seen: list[str] = []
    after: str | None = None
    pages = 0
    while True:
        page = await task_views.page(database, limit=200, after=after)
        assert len(encode(page)) < 4_200 * KB
        seen += [item.task_id for item in page.items]
        pages += 1
        if (after := page.next) is None:
            break
    assert seen == [f"t{n}" for n in reversed(range(150))]
    assert pages == 5


async def test_large_values_are_left_out_of_lists_and_named(database: Database) -> None:
    await keep(database, plan_of(3, 500 * KB))
    (page, detail) = await asyncio.gather(
        task_views.page(database), task_views.plan_detail(database, "p1")
    )
    assert detail is not None
    for view in (*page.items, *detail[1]):
        assert view.truncated == ("input", "output")
        assert bytes(view.input) == bytes(view.output) == b"null"
    whole = await task_views.task_detail(database, "p1", "t1")
    assert whole is not None
    assert whole.truncated == ()
    assert len(whole.input) == len(whole.output) == 500 * KB


async def test_a_plans_detail_has_a_bound_over_all_its_tasks(database: Database) -> None:
    await keep(database, plan_of(300, 60 * KB))
    found = await task_views.plan_detail(database, "p1")
    assert found is not None
    _, views = found
    assert len(encode(views)) < task_views.MAX_DETAIL_BYTES + 500 * KB
    assert views[0].truncated == ()
    assert views[-1].truncated == ("input", "output")
    assert len(views) == 300


# -- one moment -------------------------------------------------------------------------------


async def test_a_plan_and_its_tasks_are_of_one_moment(database: Database) -> None:
    """A writer moves the plan and its only task together; no read sees one without the other."""
    plan = begin("p1", Submitted(tasks=(TaskSpec(id="t", kind="k"),)), sequence=1, at=1.0)
    pending = Pending(0, "e")
    pending.add(plan)
    pending.advance(1)
    await pending.flush(database)
    writing = asyncio.create_task(_claim_and_complete(database, pending, plan))
    while not writing.done():
        found = await task_views.plan_detail(database, "p1")
        assert found is not None
        assert found[0].sequence == found[1][0].sequence
    await writing


async def _claim_and_complete(database: Database, pending: Pending, plan: Plan) -> None:
    for attempt in range(1, 150):
        before = None if attempt == 1 else "w"
        claim = Claimed(owner="w", attempt=attempt, lease_s=0, previous_owner=before)
        assert evolve(plan, "t", claim, sequence=attempt + 1, at=float(attempt)) is None
        plan.tasks["t"].lost = 0
        pending.add(plan)
        pending.advance(attempt + 1)
        await pending.flush(database)


# -- a file that is gone ----------------------------------------------------------------------


def delete(path: Path) -> None:
    discard(path)


def replace_by_text(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"not a database, certainly " * 100)
    other.replace(path)


@pytest.mark.parametrize("harm", [delete, replace_by_text])
async def test_a_file_that_is_deleted_or_replaced_is_written_again_whole(
    database: Database, path: Path, harm: Callable[[Path], None]
) -> None:
    await keep(database, plan_of(50))
    probe = await DatabaseProbe.open(path, database)
    await probe.ask()
    await asyncio.to_thread(harm, path)
    with pytest.raises(DatabaseUnavailable, match=r"was deleted or replaced.*written again"):
        await probe.ask()
    await probe.ask()
    assert len(await tasks_of(database, "p1")) == 50
    later = plan_of(3, sequence=500)
    await keep(database, later)
    await probe.close()
    await database.close()
    again = await open_read_models(path)
    assert [plan.plan_id for plan in (await plans.page(again)).items] == ["p500", "p1"]
    assert len(await tasks_of(again, "p1")) == 50
    await again.close()
    assert sorted(each.name for each in files_beside(path)) == [path.name]


def files_beside(path: Path) -> list[Path]:
    return list(path.parent.iterdir())
