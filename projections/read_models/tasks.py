"""Tasks as rows: what a task is and where it stands, enough to restore the folded task exactly."""

import sqlite3
from typing import Any

import msgspec
from msgspec import Raw

from projections.read_models import bulk, executions
from projections.read_models.database import Database
from projections.read_models.pagination import Page, Selection, checked_limit, key_of, page_of
from projections.read_models.views import TaskView, task_view
from streams.plan.events import NOTHING, TaskSpec
from streams.plan.lifecycle import TaskStatus
from streams.plan.state import ORDINALS_PER_PLAN, Result, Task

# The spec stands apart: SQLite rewrites whole rows, and an input may be large. The owner is set
# while a task runs, and most tasks of an old log are COMPLETED: those indexes stay small.
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
    feedback BLOB,
    result BLOB
);
CREATE UNIQUE INDEX tasks_by_id ON tasks(first_sequence, task_id);
CREATE INDEX tasks_by_kind ON tasks(kind);
CREATE INDEX tasks_by_status ON tasks(status) WHERE status <> 'COMPLETED';
CREATE INDEX tasks_by_owner ON tasks(owner) WHERE owner IS NOT NULL;
CREATE TABLE task_specs (ordinal INTEGER PRIMARY KEY, spec BLOB NOT NULL);
"""

FIXED = ("ordinal", "first_sequence", "task_id", "kind", "type")
CHANGING = (
    "status", "attempt", "retry", "lost", "timeouts", "owner", "lease_s", "lease_until",
    "claimable_at", "claimed_sequence", "settled_sequence", "subject_sequence", "sequence",
    "updated_at", "unreadable_at", "feedback", "result",
)  # fmt: skip

INSERT = bulk.insert("tasks", (*FIXED, *CHANGING))
UPDATE = bulk.update("tasks", ("ordinal", *CHANGING))
INSERT_SPEC = bulk.insert_new("task_specs", ("ordinal", "spec"))

_encode = msgspec.json.Encoder().encode
_decode_spec = msgspec.json.Decoder(TaskSpec).decode
_decode_result = msgspec.json.Decoder(Result).decode


# -- rows -------------------------------------------------------------------------------------


def fixed_row(first_sequence: int, task: Task) -> bulk.Row:
    """The part that never changes, in the order of FIXED."""
    spec = task.spec
    return (task.ordinal, first_sequence, spec.id, spec.kind, spec.type)


def spec_row(task: Task) -> bulk.Row:
    """What was submitted."""
    return (task.ordinal, _encode(task.spec))


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
        None if feedback is NOTHING else bytes(feedback),
        None if result is None else _encode(result),
    )


_COLUMNS = """
t.ordinal, spec, t.status, t.attempt, t.retry, t.lost, t.timeouts, t.owner, t.lease_s,
t.lease_until, t.claimable_at, t.claimed_sequence, t.settled_sequence, t.subject_sequence,
t.sequence, t.updated_at, t.unreadable_at, t.feedback, t.result
"""
_WIDTH = 19
_FROM = "FROM tasks t JOIN task_specs s ON s.ordinal = t.ordinal"
# The execution of a task's last attempt stands in the row of its claim.
RESTORE = f"""SELECT {_COLUMNS}, t.first_sequence, {executions.COLUMNS} {_FROM}
LEFT JOIN executions e ON e.fencing_token = t.claimed_sequence"""


def restored(_: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[int, Task]:
    """The first sequence of the plan and the task in a row of RESTORE, not yet connected."""
    task, execution = _task(row), row[_WIDTH + 1 :]
    if execution[0] is not None:
        task.execution = executions.restored(execution)
    return row[_WIDTH], task


def _task(row: tuple[Any, ...]) -> Task:
    return Task(
        ordinal=row[0],
        spec=_decode_spec(row[1]),
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
        feedback=NOTHING if row[17] is None else Raw(row[17]),
        result=None if row[18] is None else _decode_result(row[18]),
    )


# -- queries ----------------------------------------------------------------------------------

_SHOW = f"SELECT {_COLUMNS}, p.plan_id, p.created_at, p.traceparent {_FROM}"
_PLAN = "JOIN plans p ON p.first_sequence = t.first_sequence"
_ID = f"(SELECT first_sequence * {ORDINALS_PER_PLAN} FROM plans WHERE plan_id = ?)"


def _shown(_: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[int, TaskView]:
    plan_id, created_at, traceparent = row[_WIDTH:]
    return row[0], task_view(plan_id, created_at, _task(row), traceparent)


async def of_plan(database: Database, plan_id: str) -> list[TaskView]:
    """All tasks of a plan, in the order they were submitted; empty if there is no such plan."""
    chosen = Selection()
    in_plan(chosen, "t.ordinal", plan_id)
    sql = f"{_SHOW} {_PLAN} {chosen.where} ORDER BY t.ordinal"
    return [view for _, view in await database.read(sql, chosen.parameters, _shown)]


async def find(database: Database, plan_id: str, task_id: str) -> TaskView | None:
    """One task of a plan."""
    sql = f"{_SHOW} {_PLAN} WHERE p.plan_id = ? AND t.task_id = ?"
    found = await database.read(sql, (plan_id, task_id), _shown)
    return found[0][1] if found else None


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
    sql = f"{_SHOW} {_PLAN} {chosen.where} ORDER BY t.ordinal DESC LIMIT ?"
    rows = await database.read(sql, (*chosen.parameters, checked_limit(limit) + 1), _shown)
    return page_of("tasks", rows, limit)


def in_plan(chosen: Selection, ordinal: str, plan_id: str) -> None:
    """Choose the rows whose task belongs to the plan; ``ordinal`` is the column that says which."""
    chosen.add(f"{ordinal} >= {_ID}", plan_id)
    chosen.add(f"{ordinal} < {_ID} + {ORDINALS_PER_PLAN}", plan_id)
