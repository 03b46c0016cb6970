"""Executions as rows: one per attempt at a task, keyed by the log sequence of its claim."""

import sqlite3
from typing import Any

import msgspec

from projections.read_models import bulk
from projections.read_models.database import Database
from projections.read_models.pagination import (
    MAX_LIMIT,
    Page,
    Selection,
    checked_limit,
    key_of,
    read_page,
)
from projections.read_models.views import ExecutionView, execution_view
from streams.plan.events import TokenUsage
from streams.plan.lifecycle import ExecutionStatus
from streams.plan.state import ORDINALS_PER_PLAN, Execution

# Most executions of an old log are completed, without an error and perhaps without a model.
DDL = """
CREATE TABLE executions (
    fencing_token INTEGER PRIMARY KEY,
    task_ordinal INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    claimed_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    sequence INTEGER NOT NULL,
    model_name TEXT,
    token_usage BLOB,
    error_type TEXT,
    error_message TEXT
);
CREATE INDEX executions_by_task ON executions(task_ordinal);
CREATE INDEX executions_by_status ON executions(status) WHERE status <> 'completed';
CREATE INDEX executions_by_error ON executions(error_type) WHERE error_type IS NOT NULL;
CREATE INDEX executions_by_model ON executions(model_name) WHERE model_name IS NOT NULL;
"""

NAMES = (
    "fencing_token", "task_ordinal", "attempt", "owner", "status", "claimed_at", "started_at",
    "finished_at", "sequence", "model_name", "token_usage", "error_type", "error_message",
)  # fmt: skip
COLUMNS = ", ".join(f"e.{name}" for name in NAMES)
WIDTH = len(NAMES)

UPSERT = bulk.insert("executions", NAMES)

_encode = msgspec.json.Encoder().encode
_decode_usage = msgspec.json.Decoder(TokenUsage).decode


# -- rows -------------------------------------------------------------------------------------


def changing_row(task_ordinal: int, execution: Execution) -> bulk.Row:
    """The whole row, in the order of COLUMNS."""
    usage = execution.token_usage
    return (
        execution.claimed_sequence,
        task_ordinal,
        execution.attempt,
        execution.owner,
        execution.status,
        execution.claimed_at,
        execution.started_at,
        execution.finished_at,
        execution.sequence,
        execution.model_name,
        None if usage is None else _encode(usage),
        execution.error_type,
        execution.error_message,
    )


def restored(row: tuple[Any, ...]) -> Execution:
    """The execution in a row of COLUMNS."""
    return Execution(
        claimed_sequence=row[0],
        attempt=row[2],
        owner=row[3],
        status=row[4],
        claimed_at=row[5],
        started_at=row[6],
        finished_at=row[7],
        sequence=row[8],
        model_name=row[9],
        token_usage=None if row[10] is None else _decode_usage(row[10]),
        error_type=row[11],
        error_message=row[12],
    )


# -- queries ----------------------------------------------------------------------------------

_SHOW = f"""
SELECT {COLUMNS}, p.plan_id, t.task_id, p.traceparent FROM executions e
JOIN tasks t ON t.ordinal = e.task_ordinal JOIN plans p ON p.first_sequence = t.first_sequence
"""
_FIRST_ORDINAL = f"(SELECT first_sequence * {ORDINALS_PER_PLAN} FROM plans WHERE plan_id = ?)"
_ORDINAL = """(SELECT ordinal FROM tasks WHERE task_id = ? AND
first_sequence = (SELECT first_sequence FROM plans WHERE plan_id = ?))"""


def _shown(row: tuple[Any, ...]) -> ExecutionView:
    plan_id, task_id, traceparent = row[WIDTH:]
    try:
        return execution_view(plan_id, task_id, restored(row), traceparent)
    except (ValueError, RecursionError) as error:
        usage = NAMES.index("token_usage")
        readable = restored((*row[:usage], None, *row[usage + 1 :]))
        view = execution_view(plan_id, task_id, readable, traceparent)
        view.unreadable = str(error)
        return view


def last_of(
    connection: sqlite3.Connection, plan_id: str, task_id: str, most: int
) -> tuple[list[ExecutionView], int]:
    """The last attempts at a task, the first first, and how many there are in all."""
    where, key = f"WHERE e.task_ordinal = {_ORDINAL}", (task_id, plan_id)
    rows = connection.execute(f"{_SHOW} {where} ORDER BY e.fencing_token DESC LIMIT {most}", key)
    views = [_shown(row) for row in rows]
    (total,) = connection.execute(f"SELECT count(*) FROM executions e {where}", key).fetchone()
    return views[::-1], total


class ClaimView(msgspec.Struct, frozen=True):
    """Who claimed an attempt, and the claim's sequence: the fencing token."""

    attempt: int
    owner: str
    sequence: int


async def claims_of_task(database: Database, plan_id: str, task_id: str) -> dict[int, ClaimView]:
    """The newest claims of a task, by attempt."""
    sql = f"""SELECT attempt, owner, fencing_token FROM executions
    WHERE task_ordinal = {_ORDINAL} ORDER BY fencing_token DESC LIMIT {MAX_LIMIT}"""
    found = await database.read(sql, (task_id, plan_id), lambda _, row: ClaimView(*row))
    return {each.attempt: each for each in found}


async def page(
    database: Database,
    *,
    plan_id: str | None = None,
    task_id: str | None = None,
    status: ExecutionStatus | None = None,
    error_type: str | None = None,
    model_name: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page[ExecutionView]:
    """Executions, the newest claim first. Without a plan, ``task_id`` means that id in any plan."""
    chosen = Selection()
    _choose_task(chosen, plan_id, task_id)
    # Inside one plan its tasks are the way in, so the other indexes are ruled out ("+").
    rule_out = "" if plan_id is None else "+"
    if status is not None:
        chosen.add(f"{rule_out}e.status = ?", status)
        if status != "completed":
            chosen.add(f"{rule_out}e.status <> 'completed'")  # SQLite then sees the index fits
    if error_type is not None:
        chosen.add(f"{rule_out}e.error_type = ?", error_type)
    if model_name is not None:
        chosen.add(f"{rule_out}e.model_name = ?", model_name)
    if after is not None:
        chosen.add(f"{rule_out}e.fencing_token < ?", key_of("executions", after))
    sql = f"{_SHOW} {chosen.where} ORDER BY e.fencing_token DESC"
    most = checked_limit(limit)
    return await database.run(
        lambda reader: read_page(reader, "executions", sql, chosen.parameters, _shown, limit=most)
    )


def _choose_task(chosen: Selection, plan_id: str | None, task_id: str | None) -> None:
    if plan_id is not None and task_id is not None:
        chosen.add(f"e.task_ordinal = {_ORDINAL}", task_id, plan_id)
    elif plan_id is not None:
        chosen.add(f"e.task_ordinal >= {_FIRST_ORDINAL}", plan_id)
        chosen.add(f"e.task_ordinal < {_FIRST_ORDINAL} + {ORDINALS_PER_PLAN}", plan_id)
    elif task_id is not None:
        chosen.add("t.task_id = ?", task_id)
