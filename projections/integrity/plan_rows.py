"""One plan as the rows that it ought to have, and as those that the file has at one moment."""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from projections.integrity.differences import TABLES, Pair, pairs
from projections.read_models import bulk, checkpoints, executions, plans, tasks
from projections.read_models.sqlite_file import DatabaseUnavailable, read_only_uri
from streams.plan.events import NOTHING
from streams.plan.state import Plan, Task

PATIENCE_S = 0.2


Rows = dict[str, list[bulk.Row]]
"""Per table its rows in the order of its key."""


class Seen(msgspec.Struct, frozen=True):
    """A plan's rows, as they were when every fact up to ``sequence`` was in them."""

    sequence: int
    rows: Rows


def rows_of(plan: Plan, *, replaced: bool) -> Rows:
    """What the file ought to have; with replaced executions, outputs and checkpoints if asked.

    Those need a plan that was never drained, and that is not on a board.
    """
    first = plan.first_sequence
    every_task = list(plan.tasks.values())
    runs = [
        executions.changing_row(task.ordinal, task.execution)
        for task in every_task
        if task.execution is not None
    ]
    if replaced:
        runs += [
            executions.changing_row(plan.tasks[task_id].ordinal, execution)
            for task_id, execution in plan.closed
        ]
    large = [(at, ordinal, bytes(output)) for at, ordinal, output in plan.outputs]
    rows: Rows = {
        "plans": [plans.fixed_row(plan) + plans.changing_row(plan)[1:]],
        "plan_specs": [plans.spec_row(plan)],
        "plan_labels": plans.label_rows(plan),
        "tasks": [
            tasks.fixed_row(first, each) + tasks.changing_row(each)[1:] for each in every_task
        ],
        "task_specs": [tasks.spec_row(task) for task in every_task],
        "outputs": large if replaced else [],
        "checkpoints": _checkpoint_rows(every_task) if replaced else [],
        "executions": runs,
    }
    for name, table in TABLES.items():
        rows[name].sort(key=lambda row, width=table.key_width: row[:width])
    return rows


def _checkpoint_rows(every_task: list[Task]) -> list[bulk.Row]:
    return [
        checkpoints.row_of((task.ordinal, key, kept, kept.held or NOTHING))
        for task in every_task
        for key, kept in (task.checkpoints or {}).items()
    ]


def pairs_of(live: Rows, folded: Rows) -> Iterator[Pair]:
    """Both sides' rows of each key, table by table."""
    for name in TABLES:
        yield from pairs(name, live[name], folded[name])


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
                columns = ", ".join(table.columns)
                rows[name] = connection.execute(
                    f"SELECT {columns} FROM {name} WHERE {table.of_plan} ORDER BY {table.key}",
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
            uri = read_only_uri(self._path)
            with closing(
                sqlite3.connect(uri, uri=True, timeout=PATIENCE_S, isolation_level=None)
            ) as connection:
                yield connection
        except sqlite3.Error as error:
            raise DatabaseUnavailable(f"{self._path} cannot be read: {error}") from error
