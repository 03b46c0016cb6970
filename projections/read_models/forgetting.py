"""Forgotten plans: removes their rows, and lists whose messages have to leave the log.

A row of `forgotten` is a `forgotten` fact that was folded here. It says how far the plan's other
messages reach, until they are removed; and it is removed itself when its fact has left the log. It
is the retention daemon's list of work, not a view: another instance may have done a part of it.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from projections.read_models import plans
from projections.read_models.bulk import Bulk, Call
from projections.read_models.database import Database
from streams.plan.fold import Tombstone
from streams.plan.state import Plan

DDL = """
CREATE TABLE forgotten (
    sequence INTEGER PRIMARY KEY, plan_id TEXT NOT NULL, at REAL NOT NULL, reach INTEGER NOT NULL,
    removed INTEGER NOT NULL
);
CREATE INDEX forgotten_to_remove ON forgotten(sequence) WHERE NOT removed;
"""

# The plans' own rows come last: the others are found by them.
_BY_TASK = (("checkpoints", "ordinal"), ("outputs", "ordinal"), ("executions", "task_ordinal"))
_BY_PLAN = ("tasks", "plan_labels", "plan_specs", "plans")

# Rows of a later plan of the same id stay: it was submitted after the fact that forgot this one.
_GONE = """WITH v(plan_id, before, at) AS ({rows}), gone(first_sequence) AS (
SELECT p.first_sequence FROM v CROSS JOIN plans p
ON p.plan_id = v.plan_id AND p.first_sequence < v.before)
"""
_TASKS = """SELECT t.ordinal FROM gone CROSS JOIN tasks t
ON t.first_sequence = gone.first_sequence"""
# How far a plan reaches is known by its rows. Without them its messages are gone, all or in part,
# and nothing that is left reaches further than what was noted before they went.
_LIST = """INSERT OR IGNORE INTO forgotten(sequence, plan_id, at, reach, removed)
WITH v(plan_id, before, at) AS ({rows})
SELECT v.before, v.plan_id, v.at, coalesce(max(p.subject_sequence, coalesce(
(SELECT max(t.subject_sequence) FROM tasks t WHERE t.first_sequence = p.first_sequence), 0)), 0), 0
FROM v LEFT JOIN plans p ON p.plan_id = v.plan_id AND p.first_sequence < v.before"""

_STATEMENTS = tuple(
    Bulk(("plan_id", "before", "at"), statement)
    for statement in (
        _LIST,
        *(f"{_GONE}DELETE FROM {table} WHERE {key} IN ({_TASKS})" for table, key in _BY_TASK),
        f"{_GONE}DELETE FROM task_specs WHERE ordinal IN ({_TASKS})",
        *(f"{_GONE}DELETE FROM {table} WHERE first_sequence IN gone" for table in _BY_PLAN),
    )
)


def calls(forgotten: Sequence[Tombstone]) -> list[Call]:
    """The statements that list plans as forgotten and remove their rows."""
    return [call for statement in _STATEMENTS for call in statement.calls(forgotten)]


# -- what the retention daemon asks -----------------------------------------------------------


class DuePlan(msgspec.Struct, frozen=True):
    """A plan of the read models without its tasks, and whether it ended before a time."""

    plan: Plan
    is_due: bool


async def ended_before(database: Database, time: float, after: int, limit: int) -> list[DuePlan]:
    """The next plans above a first sequence that were submitted before ``time``, oldest first."""

    def row(cursor: sqlite3.Cursor, found: tuple[Any, ...]) -> DuePlan:
        plan = plans.restored(cursor, found)
        ended = plan.finished_at is not None and plan.finished_at < time
        return DuePlan(plan, ended and plan.unreadable_at is None)

    sql = f"{plans.RESTORE} WHERE p.first_sequence > ? AND created_at < ?"
    ordered = f"{sql} ORDER BY p.first_sequence LIMIT ?"
    return await database.read(ordered, (after, time, limit), row)


class Removal(msgspec.Struct, frozen=True):
    """Messages that have to leave the log: those of a plan up to ``reach``; 0: not known."""

    tombstone: Tombstone
    reach: int


async def to_remove(database: Database, limit: int) -> list[Removal]:
    """Forgotten plans whose messages have not been removed from here."""
    return await _removals(database, "NOT removed", (), limit)


async def to_free(database: Database, before: float, limit: int) -> list[Removal]:
    """Forgotten plans whose ids are free since their facts stood before a time."""
    return await _removals(database, "removed AND at < ?", (before,), limit)


async def _removals(
    database: Database, which: str, values: tuple[float, ...], limit: int
) -> list[Removal]:
    sql = f"SELECT plan_id, sequence, at, reach FROM forgotten WHERE {which} ORDER BY sequence"
    return await database.read(
        f"{sql} LIMIT ?", (*values, limit), lambda _, row: Removal(Tombstone(*row[:3]), row[3])
    )


async def removed(database: Database, which: Iterable[Removal]) -> None:
    """Note that the plans' messages have left the log."""
    rows = [(each.tombstone.sequence,) for each in which]
    await database.write([("UPDATE forgotten SET removed = 1 WHERE sequence = ?", rows)])


async def freed(database: Database, which: Iterable[Removal]) -> None:
    """Drop plans from the list whose `forgotten` facts have left the log, too."""
    rows = [(each.tombstone.sequence,) for each in which]
    await database.write([("DELETE FROM forgotten WHERE sequence = ?", rows)])
