"""Compares two files of read models row by row, to see that live rows are what the log says.

The checkpoint and the audit trail are left out: the first only says how far each file is, the
second has a log of its own. Both files must have been folded up to the same fact.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from projections.read_models.database import DatabaseUnavailable

TABLES = {
    "plans": ("first_sequence",),
    "plan_specs": ("first_sequence",),
    "plan_labels": ("label", "first_sequence"),
    "tasks": ("ordinal",),
    "task_specs": ("ordinal",),
    "executions": ("fencing_token",),
}
_LONGEST_VALUE = 200

Row = tuple[Any, ...]


class Difference(msgspec.Struct, frozen=True):
    """One column of one row that differs; ``str`` of it is a readable line.

    ``column`` is None for a row that only one file has; the other file's value is then None.
    """

    table: str
    key: tuple[Any, ...]
    column: str | None
    live: str | None
    rebuilt: str | None

    def __str__(self) -> str:
        """One line for an operator."""
        row = f"{self.table} {'/'.join(map(str, self.key))}"
        if self.column is None:
            return f"{row}: only in the {'live' if self.rebuilt is None else 'rebuilt'} file"
        return f"{row}: {self.column} is {self.live} live, {self.rebuilt} rebuilt"


class Comparison(msgspec.Struct, frozen=True):
    """How many rows were compared, and the first differences found; equal when there are none."""

    rows: int
    differences: list[Difference]


def compare(live: Path, rebuilt: Path, *, limit: int = 20) -> Comparison:
    """Compare two files of the same schema, stopping at ``limit`` differences.

    Both are read side by side in key order, so memory does not grow with them; each in one
    transaction, so a file that is being written to is seen at one moment. Blocks: call it from a
    thread. Raises DatabaseUnavailable.
    """
    try:
        with closing(_open(live)) as left, closing(_open(rebuilt)) as right:
            return _compare(left, right, limit)
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"{live} and {rebuilt} cannot be compared: {error}") from error


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    connection.isolation_level = None
    connection.execute("BEGIN")
    return connection


def _compare(left: sqlite3.Connection, right: sqlite3.Connection, limit: int) -> Comparison:
    compared, differences = 0, list[Difference]()
    for table, key in TABLES.items():
        columns, live = _rows(left, table, key)
        _, rebuilt = _rows(right, table, key)
        for pair in _side_by_side(live, rebuilt, len(key)):
            compared += 1
            differences += _differences(table, columns, len(key), *pair)
            if len(differences) >= limit:
                return Comparison(compared, differences[:limit])
    return Comparison(compared, differences)


def differences_between(
    table: str, columns: list[str], key_width: int, live: Iterator[Row], rebuilt: Iterator[Row]
) -> Iterator[Difference]:
    """What differs between rows in key order whose columns, key first, are ``columns``."""
    for pair in _side_by_side(live, rebuilt, key_width):
        yield from _differences(table, columns, key_width, *pair)


def _rows(
    connection: sqlite3.Connection, table: str, key: tuple[str, ...]
) -> tuple[list[str], Iterator[Row]]:
    """The names of the columns, key first, and the rows in key order."""
    found = connection.execute(f"SELECT * FROM {table} LIMIT 0").description
    rest = [name for name, *_ in found if name not in key]
    columns = [*key, *rest]
    rows = connection.execute(f"SELECT {','.join(columns)} FROM {table} ORDER BY {','.join(key)}")
    return columns, rows


def _side_by_side(
    live: Iterator[Row], rebuilt: Iterator[Row], width: int
) -> Iterator[tuple[Row | None, Row | None]]:
    """Rows with equal keys together, others with None."""
    left, right = next(live, None), next(rebuilt, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[:width] < right[:width]):
            yield left, None
            left = next(live, None)
        elif left is None or right[:width] < left[:width]:
            yield None, right
            right = next(rebuilt, None)
        else:
            yield left, right
            left, right = next(live, None), next(rebuilt, None)


def _differences(
    table: str, columns: list[str], width: int, live: Row | None, rebuilt: Row | None
) -> list[Difference]:
    if live == rebuilt:
        return []
    key = (live or rebuilt or ())[:width]
    if live is None or rebuilt is None:
        return [
            Difference(
                table,
                key,
                None,
                None if live is None else "there",
                None if rebuilt is None else "there",
            )
        ]
    pairs = zip(columns, live, rebuilt, strict=True)
    return [Difference(table, key, name, _shown(a), _shown(b)) for name, a, b in pairs if a != b]


def _shown(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
