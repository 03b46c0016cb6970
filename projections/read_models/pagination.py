"""Lists in pages: where the next page begins travels in an opaque cursor, not on the server.

A cursor names the last row that was seen by its key, so a page is found by that key whatever
was inserted or changed meanwhile: no row is shown twice and none that was there is skipped.
"""

import base64
import binascii
import re
import sqlite3
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Generic, Literal, TypeVar

import msgspec

MAX_LIMIT = 200
MAX_CURSOR_LENGTH = 64
MAX_PAGE_BYTES = 4_000_000
ITEM_BYTES = 500  # names, numbers and times of one item

ListKind = Literal["plans", "tasks", "changes", "executions", "audit"]
T = TypeVar("T")

_CONTENT = re.compile(rb"1:([a-z]{1,16}):(\d{1,19})", re.ASCII)


class BadCursor(Exception):
    """A cursor that this kind of list never gave out."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list; ``next`` is the cursor of the following part, None at the end."""

    items: list[T]
    next: str | None


class Selection:
    """The conditions that the rows of a page meet, with their parameters."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.parameters: list[Any] = []

    def add(self, condition: str, *parameters: object) -> None:
        """Rows must also meet ``condition``."""
        self._conditions.append(condition)
        self.parameters.extend(parameters)

    @property
    def where(self) -> str:
        """The conditions as SQL, empty if there are none."""
        return f"WHERE {' AND '.join(self._conditions)}" if self._conditions else ""


def checked_limit(limit: int) -> int:
    """``limit``, if it is one that a page may have (ValueError otherwise)."""
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit must be from 1 to {MAX_LIMIT}, not {limit}")
    return limit


def cursor_after(kind: ListKind, key: int) -> str:
    """The cursor of what follows the row with ``key``."""
    return base64.urlsafe_b64encode(b"1:%b:%d" % (kind.encode(), key)).decode().rstrip("=")


def key_of(kind: ListKind, cursor: str) -> int:
    """The key in a cursor of ``kind``; raises BadCursor."""
    if len(cursor) > MAX_CURSOR_LENGTH:
        raise BadCursor("the cursor is too long")
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        content = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise BadCursor("the cursor is not one that was given out") from None
    found = _CONTENT.fullmatch(content)
    if found is None or found[1] != kind.encode() or int(found[2]) >= 2**63:
        raise BadCursor(f"the cursor is not one of a list of {kind}")
    return int(found[2])


def read_page(
    connection: sqlite3.Connection,
    kind: ListKind,
    sql: str,
    parameters: Sequence[Any],
    shown: Callable[[tuple[Any, ...]], T],
    *,
    limit: int,
    max_bytes: int = MAX_PAGE_BYTES,
    key: Callable[[tuple[Any, ...]], int] = itemgetter(0),
) -> Page[T]:
    """The first rows of ``sql``, in the order of their ``key``: at most ``limit`` items.

    A page also ends before it is larger than ``max_bytes``, though never empty while there are
    rows. Runs on a reader's thread (`Readers`).
    """
    items: list[T] = []
    weight, last = 0, 0
    for row in connection.execute(f"{sql} LIMIT ?", (*parameters, limit + 1)):
        weight += weight_of(row)
        if len(items) == limit or (items and weight > max_bytes):
            return Page(items, cursor_after(kind, last))
        items.append(shown(row))
        last = key(row)
    return Page(items, None)


def weight_of(row: Sequence[Any]) -> int:
    """About how many bytes a row is when it is shown."""
    return ITEM_BYTES + sum(len(value) for value in row if isinstance(value, bytes | str))
