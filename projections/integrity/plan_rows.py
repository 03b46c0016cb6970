"""One plan as the rows that it ought to have, and as those that the file has at one moment."""

import sqlite3
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from projections.integrity.verify import Difference, differences_between
from projections.read_models import bulk, executions, plans, tasks
from projections.read_models.database import DatabaseUnavailable
from streams.plan.state import ORDINALS_PER_PLAN, Plan

PATIENCE_S = 0.2


class Table(msgspec.Struct, frozen=True):
    """A table's columns, the key first, and the condition that picks one plan's rows."""

    columns: tuple[str, ...]
    key_width: int
    chosen: str


def _ordinals(column: str) -> str:
    width = ORDINALS_PER_PLAN
    return f"{column} >= :first * {width} AND {column} < (:first + 1) * {width}"


TABLES: Mapping[str, Table] = {
    "plans": Table((*plans.FIXED, *plans.CHANGING), 1, "first_sequence = :first"),
    "plan_specs": Table(("first_sequence", "spec"), 1, "first_sequence = :first"),
    "plan_labels": Table(("label", "first_sequence"), 2, "first_sequence = :first"),
    "tasks": Table((*tasks.FIXED, *tasks.CHANGING), 1, _ordinals("ordinal")),
    "task_specs": Table(("ordinal", "spec"), 1, _ordinals("ordinal")),
    "executions": Table(executions.NAMES, 1, _ordinals("task_ordinal")),
}

Rows = dict[str, list[bulk.Row]]
"""Per table its rows in the order of its key."""


class Seen(msgspec.Struct, frozen=True):
    """A plan's rows, as they were when every fact up to ``sequence`` was in them."""

    sequence: int
    rows: Rows


def rows_of(plan: Plan, *, ended: bool) -> Rows:
    """What the file ought to have; the executions that a newer one replaced only if ``ended``.

    They are in ``plan.closed``, so ``ended`` needs a plan that nobody has drained.
    """
    first = plan.first_sequence
    everybody = list(plan.tasks.values())
    runs = [
        executions.changing_row(task.ordinal, task.execution)
        for task in everybody
        if task.execution is not None
    ]
    if ended:
        runs += [
            executions.changing_row(plan.tasks[task_id].ordinal, execution)
            for task_id, execution in plan.closed
        ]
    rows: Rows = {
        "plans": [plans.fixed_row(plan) + plans.changing_row(plan)[1:]],
        "plan_specs": [plans.spec_row(plan)],
        "plan_labels": plans.label_rows(plan),
        "tasks": [
            tasks.fixed_row(first, each) + tasks.changing_row(each)[1:] for each in everybody
        ],
        "task_specs": [tasks.spec_row(task) for task in everybody],
        "executions": runs,
    }
    for name, table in TABLES.items():
        rows[name].sort(key=lambda row, width=table.key_width: row[:width])
    return rows


def compare_rows(live: Rows, folded: Rows) -> Iterator[Difference]:
    """What differs, table by table."""
    for name, table in TABLES.items():
        yield from differences_between(
            name, list(table.columns), table.key_width, iter(live[name]), iter(folded[name])
        )


class PlanFile:
    """Reads single plans from the read models' file, on the caller's thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, first_sequence: int) -> Seen:
        """A plan's rows and the checkpoint in one transaction. Raises DatabaseUnavailable."""
        with self._open() as connection:
            connection.execute("BEGIN")
            found = connection.execute(
                "SELECT sequence FROM checkpoint WHERE stream = 'PLANS'"
            ).fetchone()
            rows: Rows = {}
            for name, table in TABLES.items():
                key = ", ".join(table.columns[: table.key_width])
                columns = ", ".join(table.columns)
                rows[name] = connection.execute(
                    f"SELECT {columns} FROM {name} WHERE {table.chosen} ORDER BY {key}",
                    {"first": first_sequence},
                ).fetchall()
            return Seen(found[0] if found else 0, rows)

    def one_from(self, sequence: int) -> str | None:
        """The first plan submitted at ``sequence`` or later. Raises DatabaseUnavailable."""
        with self._open() as connection:
            found = connection.execute(
                "SELECT plan_id FROM plans WHERE first_sequence >= ? ORDER BY first_sequence "
                "LIMIT 1",
                (sequence,),
            ).fetchone()
            return found[0] if found else None

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        try:
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            with closing(
                sqlite3.connect(uri, uri=True, timeout=PATIENCE_S, isolation_level=None)
            ) as connection:
                yield connection
        except sqlite3.Error as error:
            raise DatabaseUnavailable(f"{self._path} cannot be read: {error}") from error
