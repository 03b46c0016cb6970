"""Tasks as their readers see them: one task, a plan's, a page of many, and what has changed."""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import asdict

from projections.read_models import checkpoints, executions, outputs, plans
from projections.read_models.database import Database
from projections.read_models.pagination import Page, Selection, checked_limit, key_of, read_page
from projections.read_models.tasks import COLUMNS, FROM, LARGE, SHORT, WIDTH, task_of
from projections.read_models.views import ExecutionView, PlanView, TaskView, task_view
from streams.plan.events import NOTHING, TaskSpec
from streams.plan.lifecycle import TaskStatus
from streams.plan.state import ORDINALS_PER_PLAN, Task

MAX_LISTED_BYTES = 64 * 1024  # of one input, output or feedback in a list (API.md)
MAX_DETAIL_BYTES = 8_000_000  # of all of them in one plan's detail
EXECUTIONS_SHOWN = 20

_PLAN = "JOIN plans p ON p.first_sequence = t.first_sequence"
_ID = f"(SELECT first_sequence * {ORDINALS_PER_PLAN} FROM plans WHERE plan_id = ?)"
_NAMES = "p.plan_id, p.created_at, p.traceparent, t.task_id, t.kind, t.type"


def _select(large: Iterable[str]) -> str:
    return f"SELECT {COLUMNS}, {', '.join(large)}, {_NAMES} {FROM} {outputs.JOIN} {_PLAN}"


_ONE = "WHERE p.plan_id = ? AND t.task_id = ?"
_SHOW = _select(LARGE.values())
# SQLite knows how long a value is without reading it.
_SHOW_SHORT = _select(
    f"CASE WHEN length({name}) > {MAX_LISTED_BYTES} THEN length({name}) ELSE {name} END"
    for name in LARGE.values()
)


def _shown(row: tuple[Any, ...]) -> TaskView:
    """The view of a row; a number in place of a large value means that it was left out."""
    large = row[SHORT:WIDTH]
    left_out = {name for name, value in zip(LARGE, large, strict=True) if isinstance(value, int)}
    if left_out:
        row = (
            *row[:SHORT],
            *(None if isinstance(each, int) else each for each in large),
            *row[WIDTH:],
        )
    plan_id, created_at, traceparent, *_ = row[WIDTH:]
    try:
        view = task_view(plan_id, created_at, task_of(row), traceparent)
    except (ValueError, RecursionError) as error:
        view = _unreadable(row, str(error))
    if view.status != "COMPLETED":
        left_out.discard("output")
    view.truncated = tuple(sorted(left_out))
    return view


def _unreadable(row: tuple[Any, ...], reason: str) -> TaskView:
    """What is known of a task although its JSON in the row cannot be read."""
    plan_id, created_at, traceparent, task_id, kind, task_type = row[WIDTH:]
    readable = Task(
        spec=TaskSpec(id=task_id, kind=kind, type=task_type, input=NOTHING),
        status=row[2],
        attempt=row[3],
        retry=row[4],
        lost=row[5],
        owner=row[7],
        lease_until=row[9],
        claimable_at=row[10],
        sequence=row[14],
        updated_at=row[15],
    )
    view = task_view(plan_id, created_at, readable, traceparent)
    view.unreadable = reason
    return view


class TaskDetail(TaskView, kw_only=True):
    """A task with its last executions, the oldest of them first, and how many there were in all.

    ``checkpoints`` are the values that its attempts have kept for the next one.
    """

    executions: list[ExecutionView]
    executions_total: int
    checkpoints: dict[str, Raw]


async def plan_detail(database: Database, plan_id: str) -> tuple[PlanView, list[TaskView]] | None:
    """A plan and its tasks in the order they were submitted, all as of one moment.

    Inputs, outputs and feedback of more than MAX_LISTED_BYTES are left out, and so is each one
    after those before it have come to MAX_DETAIL_BYTES; `TaskView.truncated` names them.
    """

    def query(connection: sqlite3.Connection) -> tuple[PlanView, list[TaskView]] | None:
        plan = plans.found(connection, plan_id)
        if plan is None:
            return None
        return plan, list(_within(MAX_DETAIL_BYTES, _rows_of(connection, plan_id)))

    return await database.run(query)


def _rows_of(connection: sqlite3.Connection, plan_id: str) -> sqlite3.Cursor:
    chosen = Selection()
    _in_plan(chosen, plan_id)
    sql = f"{_SHOW_SHORT} {chosen.where} ORDER BY t.ordinal"
    return connection.execute(sql, chosen.parameters)


def _within(most: int, rows: Iterable[tuple[Any, ...]]) -> Iterator[TaskView]:
    """The views of rows, without large values once these have come to ``most`` bytes."""
    spent = 0
    for row in rows:
        large = row[SHORT:WIDTH]
        spent += sum(len(value) for value in large if isinstance(value, bytes))
        if spent <= most:
            yield _shown(row)
        else:
            sizes = (len(value) if isinstance(value, bytes) else value for value in large)
            yield _shown((*row[:SHORT], *sizes, *row[WIDTH:]))


async def task_detail(database: Database, plan_id: str, task_id: str) -> TaskDetail | None:
    """One task, whole, with its last EXECUTIONS_SHOWN executions."""

    def query(connection: sqlite3.Connection) -> TaskDetail | None:
        row = connection.execute(f"{_SHOW} {_ONE}", (plan_id, task_id)).fetchone()
        if row is None:
            return None
        last, total = executions.last_of(connection, plan_id, task_id, EXECUTIONS_SHOWN)
        kept = checkpoints.of_task(connection, row[0])
        view = asdict(_shown(row))
        return TaskDetail(**view, executions=last, executions_total=total, checkpoints=kept)

    return await database.run(query)


async def page(
    database: Database,
    *,
    status: TaskStatus | None = None,
    kind: str | None = None,
    owner: str | None = None,
    plan_id: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page[TaskView]:
    """Tasks, the newest plan's first, and within a plan the last submitted first."""
    chosen = Selection()
    # Inside one plan its range of ordinals is the way, so the other indexes are ruled out ("+").
    rule_out = "" if plan_id is None else "+"
    if plan_id is not None:
        _in_plan(chosen, plan_id)
    if status is not None:
        chosen.add(f"{rule_out}t.status = ?", status)
        if status != "COMPLETED":
            chosen.add(f"{rule_out}t.status <> 'COMPLETED'")  # SQLite then sees the index fits
    if kind is not None:
        chosen.add(f"{rule_out}t.kind = ?", kind)
    if owner is not None:
        chosen.add(f"{rule_out}t.owner = ?", owner)
    if after is not None:
        chosen.add("t.ordinal < ?", key_of("tasks", after))
    sql = f"{_SHOW_SHORT} {chosen.where} ORDER BY t.ordinal DESC"
    most = checked_limit(limit)
    return await database.run(
        lambda reader: read_page(reader, "tasks", sql, chosen.parameters, _shown, limit=most)
    )


class TaskChanges(msgspec.Struct, frozen=True):
    """Tasks of one plan that changed, in the order in which they did; each as it is now.

    ``plan`` is the plan as of the same moment.
    Follow ``next`` until it is null; then ``sequence`` is the next ``changed_after``. It is below
    the one that was given only if the log is another one: begin at 0.
    """

    items: list[TaskView]
    next: str | None
    sequence: int
    plan: PlanView


def named_by(changed_after: int, after: str | None) -> int:
    """The sequence that a reader of changes has seen; read models below it are not new enough.

    Raises BadCursor.
    """
    seen = 0 if after is None else key_of("changes", after) // ORDINALS_PER_PLAN
    return max(changed_after, seen)


async def changes(
    database: Database, plan_id: str, *, changed_after: int, after: str | None, limit: int
) -> TaskChanges | None:
    """The plan's tasks whose visible state last changed after a sequence; None: no such plan.

    A task that changes while pages are read moves to the end, so none is missed.
    """
    most = checked_limit(limit)
    seen = (
        (changed_after + 1) * ORDINALS_PER_PLAN - 1 if after is None else key_of("changes", after)
    )

    def query(connection: sqlite3.Connection) -> TaskChanges | None:
        plan = connection.execute(_LAST_CHANGE, (plan_id,)).fetchone()
        if plan is None:
            return None
        first_sequence, last_change = plan
        shown = plans.found(connection, plan_id)
        if shown is None:
            return None
        checkpoint = connection.execute(_REACHED).fetchone()
        reached = checkpoint[0] if checkpoint else 0
        if last_change < seen // ORDINALS_PER_PLAN:
            return TaskChanges([], None, reached, shown)
        first = first_sequence * ORDINALS_PER_PLAN
        sequence, position = divmod(seen, ORDINALS_PER_PLAN)
        chosen = Selection()
        chosen.add("t.ordinal >= ?", first)
        chosen.add("t.ordinal < ?", first + ORDINALS_PER_PLAN)
        chosen.add("(t.sequence, t.ordinal) > (?, ?)", sequence, first + position)
        sql = f"{_SHOW_SHORT} {chosen.where} ORDER BY t.sequence, t.ordinal"

        def key(row: tuple[Any, ...]) -> int:
            return row[_SEQUENCE] * ORDINALS_PER_PLAN + row[0] - first

        page = read_page(connection, "changes", sql, chosen.parameters, _shown, limit=most, key=key)
        return TaskChanges(page.items, page.next, reached, shown)

    return await database.run(query)


_SEQUENCE = 14  # its place in COLUMNS
_LAST_CHANGE = "SELECT first_sequence, sequence FROM plans WHERE plan_id = ?"
_REACHED = "SELECT sequence FROM checkpoint WHERE stream = 'PLANS'"


def _in_plan(chosen: Selection, plan_id: str) -> None:
    chosen.add(f"t.ordinal >= {_ID}", plan_id)
    chosen.add(f"t.ordinal < {_ID} + {ORDINALS_PER_PLAN}", plan_id)
