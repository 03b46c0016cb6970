"""Tasks as rows: what a task is and where it stands, enough to restore the folded task exactly."""

import sqlite3
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from projections.read_models import bulk, executions
from streams.plan.events import EMPTY_OBJECT, NOTHING, Completed, TaskSpec
from streams.plan.state import Result, Task

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
    result, output, feedback = task.result, None, task.feedback
    if isinstance(result, Completed) and task.digest is None:
        result, output = replace(result, output=NOTHING), bytes(result.output)
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
        None if result is None else _encode(result),
        None if feedback is NOTHING else bytes(feedback),
        output,
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


COLUMNS = """
t.ordinal, spec, t.status, t.attempt, t.retry, t.lost, t.timeouts, t.owner, t.lease_s,
t.lease_until, t.claimable_at, t.claimed_sequence, t.settled_sequence, t.subject_sequence,
t.sequence, t.updated_at, t.unreadable_at, t.result, t.digest, t.output_bytes, t.releases,
t.reported, t.silent, t.timeout_s
"""
SHORT = 24
# A large output has a row of its own (`outputs`); it is not restored, the board reads it back.
LARGE = {"input": "input", "feedback": "feedback", "output": "COALESCE(o.output, t.output)"}
WIDTH = SHORT + len(LARGE)
FROM = "FROM tasks t JOIN task_specs s ON s.ordinal = t.ordinal"
# The execution of a task's last attempt stands in the row of its claim.
RESTORE = f"""SELECT {COLUMNS}, input, feedback, t.output, t.first_sequence, {executions.COLUMNS}
{FROM} LEFT JOIN executions e ON e.fencing_token = t.claimed_sequence"""


def restored(_: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[int, Task]:
    """The first sequence of the plan and the task in a row of RESTORE, not yet connected."""
    task, execution = task_of(row), row[WIDTH + 1 :]
    if execution[0] is not None:
        task.execution = executions.restored(execution)
    return row[WIDTH], task


def task_of(row: tuple[Any, ...]) -> Task:
    """The task in the first WIDTH columns of a row."""
    spec, result = row[1], row[17]
    given, feedback, output = row[SHORT:WIDTH]
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
