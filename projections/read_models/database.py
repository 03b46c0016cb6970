"""The SQLite file behind the read models: one writer, a few readers, checkpoint with the rows.

Rows and checkpoint change in one transaction, so a crash neither loses nor repeats a fact. The
file can always be rebuilt from the log, which is why a commit need not be synced to disk
(``synchronous=NORMAL``): after a power cut the newest commits may be gone, never half of one.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import aiosqlite
import msgspec

from projections.log_identity import Witness
from projections.read_models.bulk import Bulk, Call
from projections.read_models.readers import Query, Readers
from projections.read_models.sqlite_file import (
    RoomLimits,
    Schema,
    connect_reader,
    discard,
    give_free_pages_back,
    open_to_look,
    open_writer,
    sqlite_errors,
)

BUSY_TIMEOUT_S = 2.0
READERS = 3
QUERY_TIME_S = 5.0
ROOM_LIMITS = RoomLimits()

CHECKPOINT_DDL = """
CREATE TABLE checkpoint (
    stream TEXT PRIMARY KEY, sequence INTEGER NOT NULL, epoch TEXT NOT NULL,
    witness_sequence INTEGER, witness_id TEXT, witness_at REAL
) WITHOUT ROWID;
"""
_CHECKPOINT = Bulk(
    ("stream", "sequence", "epoch", "witness_sequence", "witness_id", "witness_at"),
    "INSERT OR REPLACE INTO checkpoint {rows}",
)

T = TypeVar("T")
ReadRow = Callable[[sqlite3.Cursor, tuple[Any, ...]], T]


class ReadModelCheckpoint(msgspec.Struct, frozen=True, gc=False):
    """Up to where a stream has been folded into the rows, and which stream it is.

    ``epoch`` is `LogState.epoch`, ``witness`` a fact that is in the rows.
    """

    stream: str
    sequence: int
    epoch: str
    witness: Witness | None = None


class Database:
    """An open file. Everything may be called from one event loop only; calls may overlap."""

    def __init__(
        self,
        writer: aiosqlite.Connection,
        readers: Readers,
        reopen: Callable[[], Awaitable[aiosqlite.Connection]],
        path: Path,
    ) -> None:
        """``reopen`` opens ``path`` for the writer."""
        self.writer = writer
        self._reopen = reopen
        self._path = path
        self._file = _file_at(path)
        self._copied = False
        self._readers = readers
        self._writing = asyncio.Lock()
        self.transactions = 0  # how many the writer has begun
        self.in_transaction = False

    @classmethod
    async def open(
        cls, path: Path, schema: Schema, *, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> Self:
        """Open ``path``, made new if it is missing or empty.

        Raises MustRebuild for a file of another schema version, DatabaseUnavailable for a file
        that is not Holdfast's or cannot be opened.
        """
        reopen = partial(open_writer, path, schema, busy_timeout_s)
        writer = await reopen()
        readers = Readers(partial(connect_reader, path, busy_timeout_s), READERS)
        return cls(writer, readers, reopen, path)

    @classmethod
    async def look(
        cls, path: Path, schema: Schema, *, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> Self:
        """Open a file for reading only, also beside its process; writes are DatabaseUnavailable.

        Raises DatabaseUnavailable, also for a file that is missing or of another schema.
        """
        reopen = partial(open_to_look, path, schema, busy_timeout_s)
        connection = await reopen()
        readers = Readers(partial(connect_reader, path, busy_timeout_s), 1)
        return cls(connection, readers, reopen, path)

    async def close(self) -> None:
        """Close the file. What runs ends first; what comes later is DatabaseUnavailable."""
        await self._readers.close()
        with suppress(sqlite3.Error, ValueError):
            await self.writer.close()

    async def is_in_place(self) -> bool:
        """Whether the file at the path is the one that is open: it may be deleted or replaced."""
        return await asyncio.to_thread(_file_at, self._path) == self._file

    async def put_back(self) -> None:
        """Write what is open to the path again, from which it was deleted or replaced.

        Raises DatabaseUnavailable; it may then be tried again.
        """
        copy = self._path.with_name(f"{self._path.name}.copy")
        async with self._writing, self._readers.paused():
            with sqlite_errors(f"writing {self._path} again"):
                # When the last connection of a file closes, SQLite removes what is beside its path,
                # whichever file is there by then. So all close before the copy takes its place.
                if not self._copied:
                    await asyncio.to_thread(discard, copy)
                    await self.writer.execute_fetchall("VACUUM INTO ?", (str(copy),))
                    await self.writer.close()
                    self._copied = True
                await asyncio.to_thread(_replace, self._path, copy)
                self.writer = await self._reopen()
                self._copied = False
                self._file = _file_at(self._path)

    async def write(
        self, calls: Iterable[Call], checkpoint: ReadModelCheckpoint | None = None
    ) -> None:
        """Execute ``calls`` and move ``checkpoint`` in one transaction: all of it or nothing.

        Raises DatabaseUnavailable; the same write may then be tried again.
        """
        async with self._writing:
            with sqlite_errors("the write"):
                await self._write(calls, checkpoint)

    async def _write(self, calls: Iterable[Call], checkpoint: ReadModelCheckpoint | None) -> None:
        writer = self.writer
        try:
            # Python begins a transaction by itself only for statements that start with INSERT and
            # the like, and some of these start with WITH.
            await writer.execute_fetchall("BEGIN IMMEDIATE")
            self.transactions += 1
            self.in_transaction = True
            for statement, parameters in calls:
                await writer.executemany(statement, parameters)
            if checkpoint is not None:
                for statement, parameters in _CHECKPOINT.calls([_checkpoint_row(checkpoint)]):
                    await writer.executemany(statement, parameters)
            await writer.commit()
        except BaseException:
            with suppress(sqlite3.Error, ValueError):
                await asyncio.shield(writer.rollback())
            raise
        finally:
            self.in_transaction = False

    async def give_room_back(self, limits: RoomLimits = ROOM_LIMITS) -> None:
        """Give the disk a part of the room of rows that are gone, if it is much.

        Raises DatabaseUnavailable.
        """
        async with self._writing:
            with sqlite_errors("giving room back"):
                await give_free_pages_back(self.writer, limits)

    async def read(
        self,
        sql: str,
        parameters: Sequence[Any],
        row: ReadRow[T],
        *,
        within_s: float = QUERY_TIME_S,
    ) -> list[T]:
        """The answer of ``sql``, each row turned into a T by ``row`` in the reader's thread.

        Raises DatabaseUnavailable, also when all readers stay busy, when the query takes too long,
        and when a row cannot be turned into a T.
        """

        def query(connection: sqlite3.Connection) -> list[T]:
            cursor = connection.execute(sql, parameters)
            return [row(cursor, each) for each in cursor]

        return await self.run(query, within_s=within_s)

    async def run(self, query: Query[T], *, within_s: float = QUERY_TIME_S) -> T:
        """The answer of several statements that see one moment. Raises DatabaseUnavailable."""
        with sqlite_errors("the query"):
            return await self._readers.run(query, within_s)

    async def checkpoint(self, stream: str = "PLANS") -> ReadModelCheckpoint | None:
        """Up to where ``stream`` is in the rows; None: nothing was ever written."""
        found = await self.read(
            "SELECT * FROM checkpoint WHERE stream = ?", (stream,), read_checkpoint
        )
        return found[0] if found else None


def _checkpoint_row(checkpoint: ReadModelCheckpoint) -> tuple[Any, ...]:
    seen = checkpoint.witness
    witness = (None, None, None) if seen is None else (seen.sequence, seen.event_id, seen.at)
    return (checkpoint.stream, checkpoint.sequence, checkpoint.epoch, *witness)


def read_checkpoint(_: sqlite3.Cursor, row: tuple[Any, ...]) -> ReadModelCheckpoint:
    """A row of the table `checkpoint`."""
    return ReadModelCheckpoint(*row[:3], witness=None if row[3] is None else Witness(*row[3:]))


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file stands at ``path``, whatever is in it; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _replace(path: Path, copy: Path) -> None:
    if copy.exists():  # or it has taken its place already, and only opening it has failed
        discard(path)
        copy.replace(path)
