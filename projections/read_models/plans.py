"""Plans as rows: one per plan, what was submitted beside it, and its labels for looking it up."""

import sqlite3
from typing import Any

import msgspec
from msgspec.structs import replace

from projections.read_models import bulk
from projections.read_models.database import Database
from projections.read_models.pagination import Page, Selection, checked_limit, key_of, read_page
from projections.read_models.views import PlanView, moment, moment_or_none
from streams.plan.events import EMPTY_OBJECT, Submitted
from streams.plan.lifecycle import PLAN_STATUSES, TASK_STATUSES, PlanStatus, TaskStatus
from streams.plan.state import Plan
from streams.traceparent import trace_id_of

# What never changes stands apart: SQLite rewrites whole rows, and a context may be large. Most
# plans of an old log are COMPLETED, so an index of the others is small and finds the rest.
# An id may stand twice inside one flush: of a plan that is forgotten in it and of the next one.
DDL = """
CREATE TABLE plans (
    first_sequence INTEGER PRIMARY KEY,
    plan_id TEXT NOT NULL,
    created_at REAL NOT NULL,
    traceparent TEXT NOT NULL,
    tracestate TEXT NOT NULL,
    status TEXT NOT NULL,
    finished_at REAL,
    sequence INTEGER NOT NULL,
    subject_sequence INTEGER NOT NULL,
    paused INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    ever_claimed INTEGER NOT NULL,
    run_sequence INTEGER NOT NULL,
    unreadable_at INTEGER,
    counts BLOB NOT NULL
);
CREATE INDEX plans_by_id ON plans(plan_id);
CREATE INDEX plans_by_status ON plans(status) WHERE status <> 'COMPLETED';
CREATE TABLE plan_specs (first_sequence INTEGER PRIMARY KEY, spec BLOB NOT NULL);
CREATE TABLE plan_labels (
    label TEXT NOT NULL, first_sequence INTEGER NOT NULL, PRIMARY KEY (label, first_sequence)
) WITHOUT ROWID;
CREATE INDEX plan_labels_by_plan ON plan_labels(first_sequence);
"""

FIXED = ("first_sequence", "plan_id", "created_at", "traceparent", "tracestate")
CHANGING = (
    "status", "finished_at", "sequence", "subject_sequence", "paused", "cancelled",
    "ever_claimed", "run_sequence", "unreadable_at", "counts",
)  # fmt: skip

INSERT = bulk.insert("plans", (*FIXED, *CHANGING))
UPDATE = bulk.update("plans", ("first_sequence", *CHANGING))
INSERT_SPEC = bulk.insert_new("plan_specs", ("first_sequence", "spec"))
INSERT_LABEL = bulk.insert_new("plan_labels", ("label", "first_sequence"))

_encode = msgspec.json.Encoder().encode
_decode_spec = msgspec.json.Decoder(Submitted).decode
_decode_counts = msgspec.json.Decoder(dict[TaskStatus, int]).decode


# -- rows -------------------------------------------------------------------------------------


def fixed_row(plan: Plan) -> bulk.Row:
    """The part that never changes, in the order of FIXED."""
    trace = (plan.traceparent, plan.tracestate)
    return (plan.first_sequence, plan.plan_id, plan.created_at, *trace)


def spec_row(plan: Plan) -> bulk.Row:
    """What was submitted; the tasks' own part stands with the tasks."""
    return (plan.first_sequence, _encode(replace(plan.spec, tasks=())))


def label_rows(plan: Plan) -> list[bulk.Row]:
    """Each label twice: as ``key`` and as ``key=value``, the two ways to ask for it."""
    labels: dict[str, None] = {}
    for key, value in plan.spec.labels.items():
        labels[key] = labels[f"{key}={value}"] = None
    return [(label, plan.first_sequence) for label in labels]


def changing_row(plan: Plan) -> bulk.Row:
    """The key and the part that changes, in the order of CHANGING."""
    return (
        plan.first_sequence,
        plan.status,
        plan.finished_at,
        plan.sequence,
        plan.subject_sequence,
        plan.paused,
        plan.cancelled,
        plan.ever_claimed,
        plan.run_sequence,
        plan.unreadable_at,
        _encode(plan.counts),
    )


def restored(_: sqlite3.Cursor, row: tuple[Any, ...]) -> Plan:
    """The plan in a row of RESTORE, without its tasks."""
    return Plan(
        first_sequence=row[0],
        plan_id=row[1],
        created_at=row[2],
        finished_at=row[3],
        sequence=row[4],
        subject_sequence=row[5],
        paused=bool(row[6]),
        cancelled=bool(row[7]),
        ever_claimed=bool(row[8]),
        unreadable_at=row[9],
        spec=_decode_spec(row[10]),
        traceparent=row[11],
        run_sequence=row[12],
        tracestate=row[13],
        tasks={},
        counts=dict.fromkeys(TASK_STATUSES, 0),
    )


RESTORE = """
SELECT p.first_sequence, plan_id, created_at, finished_at, sequence, subject_sequence, paused,
       cancelled, ever_claimed, unreadable_at, spec, traceparent, run_sequence,
       tracestate
FROM plans p JOIN plan_specs s ON s.first_sequence = p.first_sequence
"""


# -- queries ----------------------------------------------------------------------------------

SHOW = """
SELECT p.first_sequence, plan_id, status, created_at, finished_at, sequence, counts, spec,
       traceparent
FROM plans p JOIN plan_specs s ON s.first_sequence = p.first_sequence
"""


def shown(row: tuple[Any, ...]) -> PlanView:
    """The view of a row of SHOW; of one that cannot be read what else is known."""
    _, plan_id, status, created_at, finished_at, sequence, counts, spec, trace = row
    view = PlanView(
        plan_id=plan_id,
        name="",
        status=status,
        priority=0,
        labels={},
        context=EMPTY_OBJECT,
        created_at=moment(created_at),
        finished_at=moment_or_none(finished_at),
        sequence=sequence,
        counts=dict.fromkeys(TASK_STATUSES, 0),
        trace_id=trace_id_of(trace),
    )
    try:
        view.counts = _decode_counts(counts)
        submitted = _decode_spec(spec)
        view.name, view.priority = submitted.name, submitted.priority
        view.labels, view.context = submitted.labels, submitted.context
    except (ValueError, RecursionError) as error:
        view.unreadable = str(error)
    return view


def found(connection: sqlite3.Connection, plan_id: str) -> PlanView | None:
    """The plan with this id, on a reader's thread."""
    row = connection.execute(f"{SHOW} WHERE plan_id = ?", (plan_id,)).fetchone()
    return None if row is None else shown(row)


class PlanFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which plans a list shows: those that meet every condition that is not None.

    ``label`` is ``key`` (any value) or ``key=value``; ``kind`` and ``error_type`` are met by one
    task, or attempt, of the plan; ``text`` stands in the id or the name, in any case. Times are
    seconds since the epoch, the first included and the last not.
    """

    status: PlanStatus | None = None
    label: str | None = None
    kind: str | None = None
    error_type: str | None = None
    text: str | None = None
    submitted_from: float | None = None
    submitted_to: float | None = None


EVERY_PLAN = PlanFilter()


def _chosen(wanted: PlanFilter) -> Selection:
    chosen = Selection()
    if wanted.status is not None:
        chosen.add("status = ?", wanted.status)
        if wanted.status != "COMPLETED":
            chosen.add("status <> 'COMPLETED'")  # or SQLite does not see that its index fits
    if wanted.label is not None:
        chosen.add("l.label = ?", wanted.label)
    if wanted.kind is not None:
        tasks = "SELECT first_sequence FROM tasks WHERE kind = ?"
        chosen.add(f"p.first_sequence IN ({tasks})", wanted.kind)
    if wanted.error_type is not None:
        failed = "SELECT task_ordinal FROM executions WHERE error_type = ?"
        tasks = f"SELECT first_sequence FROM tasks WHERE ordinal IN ({failed})"
        chosen.add(f"p.first_sequence IN ({tasks})", wanted.error_type)
    if wanted.text is not None:
        named = "instr(lower(json_extract(CAST(spec AS TEXT), '$.name')), lower(?))"
        chosen.add(f"(instr(lower(plan_id), lower(?)) OR {named})", wanted.text, wanted.text)
    if wanted.submitted_from is not None:
        chosen.add("created_at >= ?", wanted.submitted_from)
    if wanted.submitted_to is not None:
        chosen.add("created_at < ?", wanted.submitted_to)
    return chosen


async def page(
    database: Database,
    wanted: PlanFilter = EVERY_PLAN,
    *,
    after: str | None = None,
    limit: int = 50,
) -> Page[PlanView]:
    """Plans, the newest first."""
    chosen, label = _chosen(wanted), wanted.label
    key = "p.first_sequence" if label is None else "l.first_sequence"
    if after is not None:
        chosen.add(f"{key} < ?", key_of("plans", after))
    labels = "" if label is None else "JOIN plan_labels l ON l.first_sequence = p.first_sequence"
    sql = f"{SHOW} {labels} {chosen.where} ORDER BY {key} DESC"
    most = checked_limit(limit)
    return await database.run(
        lambda reader: read_page(reader, "plans", sql, chosen.parameters, shown, limit=most)
    )


async def oldest(database: Database) -> int | None:
    """The first sequence of the plan that was submitted first; None: there is no plan."""
    (first,) = await database.read("SELECT min(first_sequence) FROM plans", (), lambda _, row: row)
    return first[0]


async def counts(database: Database) -> dict[PlanStatus, int]:
    """How many plans there are in each status."""

    def query(connection: sqlite3.Connection) -> dict[PlanStatus, int]:
        # COMPLETED plans are the bulk of an old log: they are what the small index does not hold.
        others = "SELECT status, count(*) FROM plans WHERE status <> 'COMPLETED' GROUP BY status"
        found: dict[PlanStatus, int] = dict.fromkeys(PLAN_STATUSES, 0)
        found |= dict(connection.execute(others).fetchall())
        (total,) = connection.execute("SELECT count(*) FROM plans").fetchone()
        found["COMPLETED"] = total - sum(found.values())
        return found

    return await database.run(query)
