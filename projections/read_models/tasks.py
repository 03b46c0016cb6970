"""Tasks as rows: what a task is and where it stands, enough to restore the folded task exactly."""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import asdict, replace

from projections.read_models import bulk, checkpoints, executions, outputs, plans
from projections.read_models.database import Database
from projections.read_models.pagination import Page, Selection, checked_limit, key_of, read_page
from projections.read_models.views import ExecutionView, PlanView, TaskView, task_view
from streams.plan.events import EMPTY_OBJECT, NOTHING, Completed, TaskSpec
from streams.plan.lifecycle import TaskStatus
from streams.plan.state import ORDINALS_PER_PLAN, Result, Task

MAX_LISTED_BYTES = 64 * 1024  # of one input, output or feedback in a list (API.md)
MAX_DETAIL_BYTES = 8_000_000  # of all of them in one plan's detail
EXECUTIONS_SHOWN = 20

# The spec stands apart: SQLite rewrites whole rows, and an input may be large. What may be large
# comes last in its row, so that SQLite need not read it to show the rest. The owner is set while a
# task runs, and most tasks of an old log are COMPLETED: those indexes stay small.
DDL = """
CREATE TABLE tasks (
    ordinal INTEGER PRIMARY KEY,
    first_sequence INTEGER NOT NULL,
    task_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    retry INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    timeouts INTEGER NOT NULL,
    owner TEXT,
    lease_s REAL NOT NULL,
    lease_until REAL,
    claimable_at REAL,
    claimed_sequence INTEGER NOT NULL,
    settled_sequence INTEGER NOT NULL,
    subject_sequence INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    updated_at REAL NOT NULL,
    unreadable_at INTEGER,
    result BLOB,
    feedback BLOB,
    output BLOB,
    digest BLOB,
    output_bytes INTEGER NOT NULL,
    releases INTEGER NOT NULL,
    reported INTEGER NOT NULL,
    silent INTEGER NOT NULL,
    timeout_s REAL
);
CREATE UNIQUE INDEX tasks_by_id ON tasks(first_sequence, task_id);
CREATE INDEX tasks_by_kind ON tasks(kind);
CREATE INDEX tasks_by_status ON tasks(status) WHERE status <> 'COMPLETED';
CREATE INDEX tasks_by_owner ON tasks(owner) WHERE owner IS NOT NULL;
CREATE TABLE task_specs (ordinal INTEGER PRIMARY KEY, spec BLOB NOT NULL, input BLOB NOT NULL);
"""

FIXED = ("ordinal", "first_sequence", "task_id", "kind", "type")
CHANGING = (
    "status", "attempt", "retry", "lost", "timeouts", "owner", "lease_s", "lease_until",
    "claimable_at", "claimed_sequence", "settled_sequence", "subject_sequence", "sequence",
    "updated_at", "unreadable_at", "result", "feedback", "output", "digest", "output_bytes",
    "releases", "reported", "silent", "timeout_s",
)  # fmt: skip

INSERT = bulk.insert("tasks", (*FIXED, *CHANGING))
UPDATE = bulk.update("tasks", ("ordinal", *CHANGING))
# What a renewal changes is in no index, so SQLite writes nothing but the row.
RENEWING = (
    "lease_s", "lease_until", "subject_sequence", "sequence", "updated_at", "reported",
)  # fmt: skip
RENEW = bulk.update("tasks", ("ordinal", *RENEWING), growing=("subject_sequence", "sequence"))
SPEC = ("ordinal", "spec", "input")
INSERT_SPEC = bulk.insert_new("task_specs", SPEC)

_encode = msgspec.json.Encoder().encode
_decode_spec = msgspec.json.Decoder(TaskSpec).decode
_decode_result = msgspec.json.Decoder(Result).decode


# -- rows -------------------------------------------------------------------------------------


def fixed_row(first_sequence: int, task: Task) -> bulk.Row:
    """The part that never changes, in the order of FIXED."""
    spec = task.spec
    return (task.ordinal, first_sequence, spec.id, spec.kind, spec.type)


def spec_row(task: Task) -> bulk.Row:
    """What was submitted, in the order of SPEC."""
    spec = task.spec
    return (task.ordinal, _encode(replace(spec, input=EMPTY_OBJECT)), bytes(spec.input))


def changing_row(task: Task) -> bulk.Row:
    """The key and the part that changes, in the order of CHANGING."""
    result = task.result
    feedback = task.feedback
    return (
        task.ordinal,
        task.status,
        task.attempt,
        task.retry,
        task.lost,
        task.timeouts,
        task.owner,
        task.lease_s,
        task.lease_until,
        task.claimable_at,
        task.claimed_sequence,
        task.settled_sequence,
        task.subject_sequence,
        task.sequence,
        task.updated_at,
        task.unreadable_at,
        None if result is None else _encode(_without_output(result)),
        None if feedback is NOTHING else bytes(feedback),
        bytes(result.output) if isinstance(result, Completed) and task.digest is None else None,
        task.digest,
        task.output_bytes,
        task.releases,
        task.reported,
        task.silent,
        task.timeout_s,
    )


def renewed_row(task: Task) -> bulk.Row:
    """The key and the part that a renewal changes, in the order of RENEWING."""
    return (
        task.ordinal,
        task.lease_s,
        task.lease_until,
        task.subject_sequence,
        task.sequence,
        task.updated_at,
        task.reported,
    )


def _without_output(result: Result) -> Result:
    return replace(result, output=NOTHING) if isinstance(result, Completed) else result


_COLUMNS = """
t.ordinal, spec, t.status, t.attempt, t.retry, t.lost, t.timeouts, t.owner, t.lease_s,
t.lease_until, t.claimable_at, t.claimed_sequence, t.settled_sequence, t.subject_sequence,
t.sequence, t.updated_at, t.unreadable_at, t.result, t.digest, t.output_bytes, t.releases,
t.reported, t.silent, t.timeout_s
"""
_SHORT = 24
# A large output has a row of its own (`outputs`); it is not restored, the board reads it back.
_LARGE = {"input": "input", "feedback": "feedback", "output": "COALESCE(o.output, t.output)"}
_WIDTH = _SHORT + len(_LARGE)
_FROM = "FROM tasks t JOIN task_specs s ON s.ordinal = t.ordinal"
# The execution of a task's last attempt stands in the row of its claim.
RESTORE = f"""SELECT {_COLUMNS}, input, feedback, t.output, t.first_sequence, {executions.COLUMNS}
{_FROM} LEFT JOIN executions e ON e.fencing_token = t.claimed_sequence"""


def restored(_: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[int, Task]:
    """The first sequence of the plan and the task in a row of RESTORE, not yet connected."""
    task, execution = _task(row), row[_WIDTH + 1 :]
    if execution[0] is not None:
        task.execution = executions.restored(execution)
    return row[_WIDTH], task


def _task(row: tuple[Any, ...]) -> Task:
    spec, result = row[1], row[17]
    given, feedback, output = row[_SHORT:_WIDTH]
    task = Task(
        ordinal=row[0],
        spec=_decode_spec(spec),
        status=row[2],
        attempt=row[3],
        retry=row[4],
        lost=row[5],
        timeouts=row[6],
        owner=row[7],
        lease_s=row[8],
        lease_until=row[9],
        claimable_at=row[10],
        claimed_sequence=row[11],
        settled_sequence=row[12],
        subject_sequence=row[13],
        sequence=row[14],
        updated_at=row[15],
        unreadable_at=row[16],
        result=None if result is None else _decode_result(result),
        feedback=NOTHING if feedback is None else Raw(feedback),
        digest=row[18],
        output_bytes=row[19],
        releases=row[20],
        reported=bool(row[21]),
        silent=row[22],
        timeout_s=row[23],
    )
    task.spec = replace(task.spec, input=NOTHING if given is None else Raw(given))
    if task.digest is not None:
        task.held = None if output is None else Raw(output)
    elif output is not None and isinstance(task.result, Completed):
        task.result = replace(task.result, output=Raw(output))
    return task


# -- queries ----------------------------------------------------------------------------------

_PLAN = "JOIN plans p ON p.first_sequence = t.first_sequence"
_ID = f"(SELECT first_sequence * {ORDINALS_PER_PLAN} FROM plans WHERE plan_id = ?)"
_NAMES = "p.plan_id, p.created_at, p.traceparent, t.task_id, t.kind, t.type"


def _select(large: Iterable[str]) -> str:
    return f"SELECT {_COLUMNS}, {', '.join(large)}, {_NAMES} {_FROM} {outputs.JOIN} {_PLAN}"


_SHOW = _select(_LARGE.values())
# SQLite knows how long a value is without reading it.
_SHOW_SHORT = _select(
    f"CASE WHEN length({name}) > {MAX_LISTED_BYTES} THEN length({name}) ELSE {name} END"
    for name in _LARGE.values()
)


def _shown(row: tuple[Any, ...]) -> TaskView:
    """The view of a row; a number in place of a large value means that it was left out."""
    large = row[_SHORT:_WIDTH]
    left_out = {name for name, value in zip(_LARGE, large, strict=True) if isinstance(value, int)}
    if left_out:
        row = (
            *row[:_SHORT],
            *(None if isinstance(each, int) else each for each in large),
            *row[_WIDTH:],
        )
    plan_id, created_at, traceparent, *_ = row[_WIDTH:]
    try:
        view = task_view(plan_id, created_at, _task(row), traceparent)
    except (ValueError, RecursionError) as error:
        view = _unreadable(row, str(error))
    if view.status != "COMPLETED":
        left_out.discard("output")
    view.truncated = tuple(sorted(left_out))
    return view


def _unreadable(row: tuple[Any, ...], reason: str) -> TaskView:
    """What is known of a task although its JSON in the row cannot be read."""
    plan_id, created_at, traceparent, task_id, kind, task_type = row[_WIDTH:]
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
    in_plan(chosen, "t.ordinal", plan_id)
    sql = f"{_SHOW_SHORT} {chosen.where} ORDER BY t.ordinal"
    return connection.execute(sql, chosen.parameters)


def _within(most: int, rows: Iterable[tuple[Any, ...]]) -> Iterator[TaskView]:
    """The views of rows, without large values once these have come to ``most`` bytes."""
    spent = 0
    for row in rows:
        large = row[_SHORT:_WIDTH]
        spent += sum(len(value) for value in large if isinstance(value, bytes))
        if spent <= most:
            yield _shown(row)
        else:
            sizes = (len(value) if isinstance(value, bytes) else value for value in large)
            yield _shown((*row[:_SHORT], *sizes, *row[_WIDTH:]))


async def of_plan(database: Database, plan_id: str) -> list[TaskView]:
    """All tasks of a plan, in the order they were submitted; empty if there is no such plan."""
    detail = await plan_detail(database, plan_id)
    return [] if detail is None else detail[1]


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


_ONE = "WHERE p.plan_id = ? AND t.task_id = ?"


async def find(database: Database, plan_id: str, task_id: str) -> TaskView | None:
    """One task of a plan, whole."""
    found = await database.read(f"{_SHOW} {_ONE}", (plan_id, task_id), lambda _, row: _shown(row))
    return found[0] if found else None


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
        in_plan(chosen, "t.ordinal", plan_id)
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


_SEQUENCE = 14  # its place in _COLUMNS
_LAST_CHANGE = "SELECT first_sequence, sequence FROM plans WHERE plan_id = ?"
_REACHED = "SELECT sequence FROM checkpoint WHERE stream = 'PLANS'"


def in_plan(chosen: Selection, ordinal: str, plan_id: str) -> None:
    """Choose the rows whose task belongs to the plan; ``ordinal`` is the column that says which."""
    chosen.add(f"{ordinal} >= {_ID}", plan_id)
    chosen.add(f"{ordinal} < {_ID} + {ORDINALS_PER_PLAN}", plan_id)
