"""Statements that write many rows at once, so that a flush is a handful of calls into SQLite.

Python gives its interpreter lock away around every step of a statement and, while another thread
computes, gets it back only after that thread's switch interval (5 ms): one row per step means a
few hundred rows per second in a busy process. A thousand rows per step means a hundred thousand.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import chain
from typing import Any, TypeVar

K = TypeVar("K")
Row = tuple[Any, ...]
Call = tuple[str, Iterable[Sequence[Any]]]
"""A statement and the parameter lists to execute it with, one after the other."""

MAX_ROWS = 1024
SIZES = (1, 8, 32, 64, 128, 256, 512)  # and the largest: at most half of what is written is padding
ROW_BYTES = 600  # a tuple with its numbers and short texts
MAX_PARAMETERS = 32_000  # SQLite's own limit is 32,766


class Bulk:
    """A statement over many rows; ``{rows}`` in it stands for VALUES of the given columns.

    Rows are padded to one of a few sizes by repeating the last one, so few statements are ever
    prepared: writing a row twice must be writing it once.
    """

    def __init__(self, columns: Sequence[str], statement: str) -> None:
        self.columns = tuple(columns)
        self._statement = statement
        largest = min(MAX_ROWS, MAX_PARAMETERS // len(self.columns))
        self._statements = {size: self._sized(size) for size in (*SIZES, largest)}
        self._largest = largest

    def _sized(self, size: int) -> str:
        row = f"({','.join('?' * len(self.columns))})"
        return self._statement.replace("{rows}", f"VALUES {','.join([row] * size)}")

    def calls(self, rows: Sequence[Row]) -> Iterator[Call]:
        """The statements that write ``rows``."""
        return self.calls_for(rows, tuple)

    def calls_for(self, keys: Sequence[K], row_of: Callable[[K], Row]) -> Iterator[Call]:
        """The statements that write the row of each key; rows are made as they are consumed."""
        whole = len(keys) - len(keys) % self._largest
        if whole:
            yield self._statements[self._largest], self._chunks(keys[:whole], row_of, self._largest)
        if rest := len(keys) - whole:
            size = next(size for size in self._statements if size >= rest)
            yield self._statements[size], self._chunks(keys[whole:], row_of, size)

    def _chunks(
        self, keys: Sequence[K], row_of: Callable[[K], Row], size: int
    ) -> Iterator[list[Any]]:
        width = len(self.columns)
        for start in range(0, len(keys), size):
            chunk = list(chain.from_iterable(map(row_of, keys[start : start + size])))
            yield chunk + chunk[-width:] * (size - len(chunk) // width)


def insert(table: str, columns: Sequence[str], key_width: int = 1) -> Bulk:
    """Insert rows, or overwrite those whose first ``key_width`` columns, the key, are there."""
    key, rest = ",".join(columns[:key_width]), columns[key_width:]
    changes = ",".join(f"{column}=excluded.{column}" for column in rest)
    return Bulk(
        columns,
        f"INSERT INTO {table}({','.join(columns)}) {{rows}} "
        f"ON CONFLICT ({key}) DO UPDATE SET {changes}",
    )


def insert_new(table: str, columns: Sequence[str]) -> Bulk:
    """Insert rows; those that are there already stay as they are."""
    return Bulk(columns, f"INSERT OR IGNORE INTO {table}({','.join(columns)}) {{rows}}")


def update(table: str, columns: Sequence[str], growing: Sequence[str] = ()) -> Bulk:
    """Change rows, found by their first column; those that are not there are left out.

    So are those in which one of the ``growing`` columns has passed the given value already.
    """
    key, *rest = columns
    changes = ",".join(f"{column}=v.{column}" for column in rest)
    newer = "".join(f" AND {table}.{column} <= v.{column}" for column in growing)
    return Bulk(
        columns,
        f"WITH v({','.join(columns)}) AS ({{rows}}) "
        f"UPDATE {table} SET {changes} FROM v WHERE {table}.{key} = v.{key}{newer}",
    )


class Changes:
    """The rows of one table that changed since the last flush: the newest version of each.

    ``fixed`` holds the immutable part of rows that are not in the table yet, ``changing`` the
    mutable part of all, each beginning with its key; `merge` keeps ``size_bytes`` true. ``large``
    names the changing columns whose texts are as long as workers and submitters make them.
    """

    __slots__ = ("_insert", "_large", "_update", "changing", "fixed", "size_bytes")

    def __init__(
        self, update: Bulk, insert: Bulk | None = None, *, large: Sequence[str] = ()
    ) -> None:
        self._update = update
        self._insert = insert
        self._large = [update.columns.index(column) for column in large]
        self.fixed: dict[Any, Row] = {}
        self.changing: dict[Any, Row] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self.changing)

    def merge(self, changing: Mapping[Any, Row], fixed: Mapping[Any, Row] | None = None) -> None:
        """Have rows written, in place of older ones of the same keys."""
        older = [self.changing[key] for key in self.changing.keys() & changing.keys()]
        self.size_bytes += self._size_of(changing.values()) - self._size_of(older)
        self.changing.update(changing)
        self.fixed.update(fixed or {})

    def cut(self) -> "Changes":
        """Hand over the content and go on empty."""
        taken = copy(self)
        taken.fixed, self.fixed = self.fixed, {}
        taken.changing, self.changing = self.changing, {}
        taken.size_bytes, self.size_bytes = self.size_bytes, 0
        return taken

    def put_back(self, taken: "Changes") -> None:
        """Take back what could not be written, under what has changed since."""
        taken.fixed.update(self.fixed)
        taken.changing.update(self.changing)
        self.fixed, self.changing = taken.fixed, taken.changing
        self.size_bytes = self._size_of(self.changing.values())

    def calls(self) -> Iterator[Call]:
        """The statements that write the content."""
        fixed, changing = self.fixed, self.changing
        if self._insert is None or not fixed:
            yield from self._update.calls_for(list(changing), changing.__getitem__)
            return
        yield from self._insert.calls_for(list(fixed), lambda key: fixed[key] + changing[key][1:])
        known = [key for key in changing if key not in fixed]
        yield from self._update.calls_for(known, changing.__getitem__)

    def _size_of(self, rows: Collection[Row]) -> int:
        """About how many bytes rows hold in memory: their long texts, and what every row costs."""
        texts = [len(row[place] or b"") for place in self._large for row in rows]
        return ROW_BYTES * len(rows) + sum(texts)
