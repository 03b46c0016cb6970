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
from projections.read_models.bulk import Bulk, Call, Row
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
_GONE = """WITH v(plan_id, before, at, reach) AS ({rows}), gone(first_sequence) AS (
SELECT p.first_sequence FROM v CROSS JOIN plans p
ON p.plan_id = v.plan_id AND p.first_sequence < v.before)
"""
_TASKS = """SELECT t.ordinal FROM gone CROSS JOIN tasks t
ON t.first_sequence = gone.first_sequence"""
# How far a plan reaches is known by the fold or, when it had left memory, by its rows. There are
# none if its messages are gone, all or in part.
_LIST = """INSERT OR IGNORE INTO forgotten(sequence, plan_id, at, reach, removed)
WITH v(plan_id, before, at, reach) AS ({rows})
SELECT v.before, v.plan_id, v.at, max(v.reach, coalesce(max(p.subject_sequence, coalesce(
(SELECT max(t.subject_sequence) FROM tasks t WHERE t.first_sequence = p.first_sequence), 0)), 0)), 0
FROM v LEFT JOIN plans p ON p.plan_id = v.plan_id AND p.first_sequence < v.before"""

_STATEMENTS = tuple(
    Bulk(("plan_id", "before", "at", "reach"), statement)
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


_ROWS = "SELECT plan_id, sequence, at, reach FROM forgotten"

# -- what the retention daemon asks -----------------------------------------------------------


class DuePlan(msgspec.Struct, frozen=True):
    """A plan of the read models without its tasks, and whether it ended before a time."""

    plan: Plan
    is_due: bool


async def ended_before(database: Database, time: float, after: int, limit: int) -> list[DuePlan]:
    """The next plans above a first sequence that were submitted before ``time``, oldest first.

    Those that have tasks with unreadable facts are left out.
    """

    def row(cursor: sqlite3.Cursor, found: tuple[Any, ...]) -> DuePlan:
        plan = plans.restored(cursor, found)
        ended = plan.finished_at is not None and plan.finished_at < time
        return DuePlan(plan, ended and plan.unreadable_at is None)

    # A plan with an unreadable fact stays, as evidence of what went wrong.
    sql = f"""{plans.RESTORE} WHERE p.first_sequence > ? AND created_at < ? AND NOT EXISTS
(SELECT 1 FROM tasks t WHERE t.first_sequence = p.first_sequence AND t.unreadable_at IS NOT NULL)"""
    ordered = f"{sql} ORDER BY p.first_sequence LIMIT ?"
    return await database.read(ordered, (after, time, limit), row)


class Removal(msgspec.Struct, frozen=True):
    """Messages that have to leave the log: those of a plan up to ``reach``; 0: not known.

    ``is_free``: the others have left it, and the `forgotten` fact, at ``reach``, has to, too.
    """

    tombstone: Tombstone
    reach: int
    is_free: bool = False

    @property
    def last(self) -> int:
        """The sequence that none of these messages stands above."""
        return self.reach or self.tombstone.sequence - 1


async def is_waiting(database: Database, number: int) -> bool:
    """Whether so many plans wait to be removed."""
    sql = "SELECT 1 FROM forgotten WHERE NOT removed ORDER BY sequence LIMIT 1 OFFSET ?"
    return bool(await database.read(sql, (number - 1,), lambda _, row: row))


async def has_waited(database: Database, forgotten: float, free: float) -> bool:
    """Whether the oldest that has to be removed was forgotten before a time; or is free before one.

    Times are those of the facts that forget plans (log time).
    """
    sql = """SELECT coalesce(
(SELECT at FROM forgotten WHERE NOT removed ORDER BY sequence LIMIT 1) < ?, 0) OR coalesce(
(SELECT at FROM forgotten ORDER BY sequence LIMIT 1) < ?, 0)"""
    return (await database.read(sql, (forgotten, free), lambda _, row: bool(row[0])))[0]


async def to_remove(database: Database, limit: int) -> list[Removal]:
    """Forgotten plans whose messages have not been removed from here."""
    sql = f"{_ROWS} WHERE NOT removed ORDER BY sequence LIMIT ?"
    return await database.read(sql, (limit,), lambda _, row: Removal(Tombstone(*row[:3]), row[3]))


async def to_free(database: Database, before: float, limit: int) -> list[Removal]:
    """Those of the ``limit`` oldest whose ids are free since their facts stood before a time."""

    def row(_: object, found: tuple[Any, ...]) -> Removal:
        tombstone = Tombstone(*found[:3])
        return Removal(tombstone, tombstone.sequence, is_free=True)

    # Without an index on the time: the oldest rows have the lowest sequences.
    oldest = "SELECT * FROM forgotten ORDER BY sequence LIMIT ?"
    sql = f"SELECT plan_id, sequence, at FROM ({oldest}) WHERE removed AND at < ? ORDER BY sequence"
    return await database.read(sql, (limit, before), row)


async def stays_from(database: Database, since: float) -> int | None:
    """The first sequence of what has to stand in the log: plans, and `forgotten` facts.

    Of these, those that stand since ``since`` (log time) or later. None: there is nothing.
    """

    def query(connection: sqlite3.Connection) -> int | None:
        (plan,) = connection.execute("SELECT min(first_sequence) FROM plans").fetchone()
        sql = "SELECT sequence FROM forgotten WHERE at >= ? ORDER BY sequence LIMIT 1"
        fact = connection.execute(sql, (since,)).fetchone()
        return min((each for each in (plan, fact and fact[0]) if each is not None), default=None)

    return await database.run(query)


_SET = "WITH v(sequence) AS ({rows}) UPDATE forgotten SET removed = 1 WHERE sequence IN v"
_DROP = "WITH v(sequence) AS ({rows}) DELETE FROM forgotten WHERE sequence IN v"
_REMOVED, _FREED = Bulk(("sequence",), _SET), Bulk(("sequence",), _DROP)


async def settled(database: Database, which: Iterable[Removal]) -> None:
    """Note that the plans' messages have left the log; drop those that were free."""
    rows: dict[bool, list[Row]] = {False: [], True: []}
    for each in which:
        rows[each.is_free].append((each.tombstone.sequence,))
    await database.write([*_REMOVED.calls(rows[False]), *_FREED.calls(rows[True])])
