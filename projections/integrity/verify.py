"""Compares two files of read models row by row, to see that live rows are what the log holds.

The checkpoint and the audit trail are left out: the first only says how far each file is, the
second has a log of its own. Both files must have been folded up to the same fact.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from projections.integrity.differences import TABLES, Difference, IsGone, pairs
from projections.read_models.bulk import Row
from projections.read_models.sqlite_file import DatabaseUnavailable, read_only_uri


class Comparison(msgspec.Struct, frozen=True):
    """How many rows were compared, and the first differences found; equal when there are none."""

    rows: int
    differences: list[Difference]


def compare(
    live: Path, rebuilt: Path, *, is_gone: IsGone = lambda _: False, limit: int = 20
) -> Comparison:
    """Compare two files of the same schema, stopping at ``limit`` differences.

    Both are read side by side in key order, so memory does not grow with them; each in one
    transaction, so a file that is being written to is seen at one moment. ``is_gone`` is asked of
    sequences that only the live file knows. Blocks: call it from a thread. Raises
    DatabaseUnavailable.
    """
    try:
        with closing(_open(live)) as left, closing(_open(rebuilt)) as right:
            return _compare(left, right, is_gone, limit)
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"{live} and {rebuilt} cannot be compared: {error}") from error


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(read_only_uri(path), uri=True)
    connection.isolation_level = None
    connection.execute("BEGIN")
    return connection


def _compare(
    left: sqlite3.Connection, right: sqlite3.Connection, is_gone: IsGone, limit: int
) -> Comparison:
    compared, differences = 0, list[Difference]()
    for table in TABLES:
        for pair in pairs(table, _rows(left, table), _rows(right, table)):
            compared += 1
            differences += pair.differences(is_gone)
            if len(differences) >= limit:
                return Comparison(compared, differences[:limit])
    return Comparison(compared, differences)


def _rows(connection: sqlite3.Connection, name: str) -> Iterator[Row]:
    table = TABLES[name]
    columns = ", ".join(table.columns)
    return connection.execute(f"SELECT {columns} FROM {name} ORDER BY {table.key}")
