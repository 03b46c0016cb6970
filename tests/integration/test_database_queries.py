"""Lists and look-ups of the read models: complete, stable while rows change, and filtered."""

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.json import encode
from msgspec.structs import asdict

from projections.read_models import audit, executions, plans, task_views
from projections.read_models.database import Database
from projections.read_models.pagination import Page
from projections.read_models.pending import Pending
from projections.read_models.views import execution_view, plan_view, task_view
from streams.plan.events import Claimed, Completed, Failed, Submitted, TaskSpec
from streams.plan.evolve import begin, evolve
from streams.plan.lifecycle import PlanStatus
from streams.plan.state import Plan
from tests.integration.read_models_world import History, folded_into, plan_of, tasks_of

Ask = Callable[..., Awaitable[Page[Any]]]


def history() -> History:
    told = History()
    for number in range(0, 6_000, 11):
        told.choose(number)
    return told


@pytest.fixture
def told() -> History:
    return history()


@pytest.fixture
async def database(told: History, tmp_path: Path) -> AsyncGenerator[Database, None]:
    opened = await folded_into(tmp_path / "read-models.sqlite", told.facts)
    yield opened
    await opened.close()


async def walk(ask: Ask, database: Database, limit: int, **filters: Any) -> list[Any]:
    """All pages, one after the other."""
    items: list[Any] = []
    after: str | None = None
    while True:
        page = await ask(database, after=after, limit=limit, **filters)
        items += page.items
        after = page.next
        if after is None:
            return items
        assert len(page.items) == limit


async def test_views_from_rows_equal_views_from_the_fold(database: Database, told: History) -> None:
    for plan in told.plans.values():
        assert await plan_of(database, plan.plan_id) == plan_view(plan)
        expected = [
            task_view(plan.plan_id, plan.created_at, task, plan.traceparent)
            for task in plan.tasks.values()
        ]
        assert await tasks_of(database, plan.plan_id) == expected
        for task, view in zip(plan.tasks.values(), expected, strict=True):
            detail = await task_views.task_detail(database, plan.plan_id, task.spec.id)
            assert detail is not None
            assert asdict(view).items() <= asdict(detail).items()
            attempts, total = detail.executions, detail.executions_total
            assert total == task.attempt
            last = range(max(1, total - task_views.EXECUTIONS_SHOWN + 1), total + 1)
            assert [e.attempt for e in attempts] == list(last)
            if task.execution is not None:
                assert attempts[-1] == execution_view(
                    plan.plan_id, task.spec.id, task.execution, plan.traceparent
                )


async def test_what_is_not_there_is_not_found(database: Database) -> None:
    assert await plan_of(database, "nobody") is None
    assert await tasks_of(database, "nobody") == []
    assert await task_views.task_detail(database, "p1", "nobody") is None
    assert await task_views.plan_detail(database, "nobody") is None
    assert (await task_views.page(database, plan_id="nobody")).items == []
    assert (await executions.page(database, plan_id="nobody", task_id="a")).items == []


FILTERS: list[tuple[Ask, dict[str, Any]]] = [
    *[
        (task_views.page, {"status": status})
        for status in ("COMPLETED", "FAILED", "READY", "RUNNING")
    ],
    (task_views.page, {"kind": "echo"}),
    (task_views.page, {"owner": "w1"}),
    (task_views.page, {"plan_id": "p2"}),
    (task_views.page, {"plan_id": "p2", "status": "FAILED", "kind": "echo"}),
    *[(executions.page, {"status": status}) for status in ("completed", "failed", "lost")],
    (executions.page, {"error_type": "boom"}),
    (executions.page, {"model_name": "m1"}),
    (executions.page, {"plan_id": "p1"}),
    (executions.page, {"task_id": "a"}),
    (executions.page, {"plan_id": "p1", "task_id": "a", "status": "failed"}),
    (executions.page, {"plan_id": "p1", "error_type": "boom", "model_name": "m1"}),
]


@pytest.mark.parametrize(("ask", "filters"), FILTERS)
async def test_a_filter_shows_exactly_the_rows_that_fit(
    database: Database, ask: Ask, filters: dict[str, Any]
) -> None:
    everything = await walk(ask, database, 200)
    fitting = [
        item for item in everything if all(getattr(item, k) == v for k, v in filters.items())
    ]
    assert await walk(ask, database, 200, **filters) == fitting
    assert await walk(ask, database, 1, **filters) == fitting
    assert len(fitting) < len(everything)


async def test_lists_begin_with_the_newest(database: Database) -> None:
    attempts = await walk(executions.page, database, 7)
    assert attempts == sorted(attempts, key=lambda e: e.claimed_at, reverse=True)
    shown = await walk(plans.page, database, 2)
    assert [p.created_at for p in shown] == sorted((p.created_at for p in shown), reverse=True)
    assert len({(t.plan_id, t.task_id) for t in await walk(task_views.page, database, 5)}) == 12


async def test_plans_are_found_by_label_and_status(database: Database, told: History) -> None:
    assert [
        p.plan_id
        for p in await walk(plans.page, database, 1, wanted=plans.PlanFilter(label="team=p2"))
    ] == ["p2"]
    assert len(await walk(plans.page, database, 1, wanted=plans.PlanFilter(label="team"))) == 3
    assert (
        len(await walk(plans.page, database, 1, wanted=plans.PlanFilter(label="where=here"))) == 3
    )
    assert await walk(plans.page, database, 1, wanted=plans.PlanFilter(label="team=p")) == []
    for status in {plan.status for plan in told.plans.values()}:
        expected = {p.plan_id for p in told.plans.values() if p.status == status}
        found = await walk(
            plans.page, database, 1, wanted=plans.PlanFilter(status=cast("PlanStatus", status))
        )
        assert {p.plan_id for p in found} == expected


async def test_pages_stay_whole_while_rows_come_and_change(tmp_path: Path) -> None:
    database = await folded_into(tmp_path / "x.sqlite", [])
    pending = Pending(0, "e")
    all_plans: list[Plan] = []

    async def submit(sequence: int) -> None:
        specs = tuple(TaskSpec(id=f"t{n}", kind="echo") for n in range(5))
        plan = begin(f"p{sequence}", Submitted(tasks=specs), sequence=sequence, at=float(sequence))
        all_plans.append(plan)
        pending.add(plan)
        pending.advance(sequence)
        await pending.flush(database)

    for sequence in range(1, 5):
        await submit(sequence)
    before = {(v.plan_id, v.task_id) for v in await walk(task_views.page, database, 200)}
    seen: list[tuple[str, str]] = []
    after, sequence = None, 10
    while True:
        page = await task_views.page(database, after=after, limit=3)
        seen += [(v.plan_id, v.task_id) for v in page.items]
        if (after := page.next) is None:
            break
        await submit(sequence)
        plan = all_plans[sequence % 4]
        evolve(plan, "t2", Claimed(owner="w", attempt=1, lease_s=1), sequence=sequence + 1, at=50.0)
        pending.add(plan)
        pending.advance(sequence + 1)
        await pending.flush(database)
        sequence += 2
    await database.close()
    assert len(seen) == len(set(seen))
    assert set(seen) == before


async def test_a_failed_task_that_was_claimed_again_shows_every_attempt(tmp_path: Path) -> None:
    database = await folded_into(tmp_path / "x.sqlite", [])
    spec = Submitted(tasks=(TaskSpec(id="t", kind="echo"),))
    plan = begin("p", spec, sequence=1, at=1.0)
    failed = Failed(owner="w", attempt=1, error_type="boom", retry_in_s=0.0)
    evolve(plan, "t", Claimed(owner="w", attempt=1, lease_s=1), sequence=2, at=2.0)
    pending = Pending(0, "e")
    pending.add(plan)
    pending.advance(2)
    evolve(plan, "t", failed, sequence=3, at=3.0)
    pending.add(plan)
    pending.advance(3)
    evolve(plan, "t", Claimed(owner="v", attempt=2, lease_s=1), sequence=4, at=4.0)
    evolve(plan, "t", Completed(owner="v", attempt=2), sequence=5, at=5.0)
    pending.add(plan)
    pending.advance(5)
    await pending.flush(database)
    detail = await task_views.task_detail(database, "p", "t")
    await database.close()
    assert detail is not None
    assert [(e.attempt, e.status, e.owner) for e in detail.executions] == [
        (1, "failed", "w"),
        (2, "completed", "v"),
    ]


async def test_audit_entries_are_found_and_said_once(tmp_path: Path) -> None:
    database = await folded_into(tmp_path / "x.sqlite", [])
    entries = [
        audit.Entry(at=float(n), event=f"e{n % 3}", class_="always",
                    plan_id=f"p{n % 2}", task_id="t", owner=None if n % 5 else "w", attempt=2**63)
        for n in range(1, 31)
    ]  # fmt: skip
    rows = [audit.row(n, f"id{n}", encode(entry)) for n, entry in enumerate(entries, 1)]
    for _ in range(2):
        await audit.apply(database, rows, 30, "e")
    checkpoint = await database.checkpoint(audit.STREAM)
    assert checkpoint is not None
    assert checkpoint.sequence == 30
    everything = await walk(audit.page, database, 7)
    assert [view.sequence for view in everything] == list(range(30, 0, -1))
    assert len(await walk(audit.page, database, 4, event="e1", plan_id="p0")) == 5
    assert len(await walk(audit.page, database, 4, owner="w", task_id="t")) == 6
    await audit.forget(database, 21)
    assert len(await walk(audit.page, database, 4)) == 10
    await database.close()


AUDIT_FILTERS = {"event": "e", "plan_id": "p", "task_id": "t", "owner": "w"}


@pytest.mark.parametrize("before", [None, 50])
@pytest.mark.parametrize(
    ("columns", "index"),
    [
        ("event", "audit_by_event"),
        ("owner", "audit_by_owner"),
        ("event owner", "audit_by_owner"),
        ("plan_id", "audit_by_plan"),
        ("plan_id event", "audit_by_plan"),
        ("plan_id owner", "audit_by_plan"),
        ("plan_id event owner", "audit_by_plan"),
        ("plan_id task_id", "audit_by_plan"),
        ("plan_id task_id event owner", "audit_by_plan"),
    ],
)
def test_audit_entries_are_found_by_an_index(columns: str, index: str, before: int | None) -> None:
    """By the plan's where a plan is asked for: it has few entries, an event may have most."""
    filters = {name: AUDIT_FILTERS[name] for name in columns.split()}
    sql, parameters = audit.statement(filters, before)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(audit.DDL)
        steps = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    assert f"SEARCH audit USING INDEX {index} " in steps[0][3]


async def test_a_limit_outside_its_bounds_is_a_mistake_of_the_caller(database: Database) -> None:
    for limit in (0, 201):
        with pytest.raises(ValueError, match="limit"):
            await task_views.page(database, limit=limit)
