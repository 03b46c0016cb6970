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

APPLICATION_ID = 0x486F6C64  # "Hold", in the file's header: whose file this is
OLDEST_SQLITE = (3, 33)  # the first with UPDATE … FROM

BUSY_TIMEOUT_S = 2.0
READERS = 3
CLOSING_S = 1.0
# A flush that outgrows the cache is spilled to disk and read back; one of 100,000 rows fits.
WRITER_CACHE_KIB = 64 * 1024
WAL_PAGES = 8_000  # 32 MB written ahead before they are copied into the file
QUERY_TIME_S = 5.0
# No temporary files: a read-only root has no folder for them. What would be in them is bounded by
# what waits to be written (`projections.projector.PendingLimits`).
TEMPORARY_IN_MEMORY = "PRAGMA temp_store=MEMORY"

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


class DatabaseUnavailable(Exception):
    """SQLite did not do it (locked, full, slow, closed, damaged); nothing was changed."""


class MustRebuild(Exception):
    """The file has another schema or is damaged: `discard` it and fold the log again."""


class ReadModelCheckpoint(msgspec.Struct, frozen=True, gc=False):
    """Up to where a stream has been folded into the rows, and which stream it is.

    ``epoch`` is `LogState.epoch`, ``witness`` a fact that is in the rows.
    """

    stream: str
    sequence: int
    epoch: str
    witness: Witness | None = None


class Schema(msgspec.Struct, frozen=True):
    """The statements that make an empty file usable, and the number of this shape."""

    version: int
    ddl: str


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
        reopen = partial(_open_writer, path, schema, busy_timeout_s)
        writer = await reopen()
        readers = Readers(partial(_connect_reader, path, busy_timeout_s), READERS)
        return cls(writer, readers, reopen, path)

    @classmethod
    async def look(
        cls, path: Path, schema: Schema, *, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> Self:
        """Open a file for reading only, also beside its process; writes are DatabaseUnavailable.

        Raises DatabaseUnavailable, also for a file that is missing or of another schema.
        """
        connection = await connect(path, busy_timeout_s, read_only=True)
        try:
            with sqlite_errors(f"opening {path}"):
                version = await _pragma(connection, "user_version")
                owner = await _pragma(connection, "application_id")
        except BaseException:
            await connection.close()
            raise
        if owner != APPLICATION_ID or version != schema.version:
            await connection.close()
            raise DatabaseUnavailable(f"{path} has another schema than this version reads")
        reopen = partial(connect, path, busy_timeout_s, read_only=True)
        readers = Readers(partial(_connect_reader, path, busy_timeout_s), 1)
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
            # Said aloud: Python begins by itself only for statements that start with INSERT and
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
        found = await self.read("SELECT * FROM checkpoint WHERE stream = ?", (stream,), _checkpoint)
        return found[0] if found else None


def _checkpoint_row(checkpoint: ReadModelCheckpoint) -> tuple[Any, ...]:
    seen = checkpoint.witness
    witness = (None, None, None) if seen is None else (seen.sequence, seen.event_id, seen.at)
    return (checkpoint.stream, checkpoint.sequence, checkpoint.epoch, *witness)


def _checkpoint(_: sqlite3.Cursor, row: tuple[Any, ...]) -> ReadModelCheckpoint:
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


def discard(path: Path) -> None:
    """Remove the file and what SQLite keeps beside it; it must not be open."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def read_only_uri(path: Path) -> str:
    """The URI that opens a file for reading only, whatever characters its name has."""
    return f"{path.absolute().as_uri()}?mode=ro"


# -- opening ----------------------------------------------------------------------------------


async def connect(
    path: Path, busy_timeout_s: float, *, read_only: bool = False
) -> aiosqlite.Connection:
    """A connection in autocommit mode. Raises DatabaseUnavailable."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise DatabaseUnavailable(
            f"SQLite {sqlite3.sqlite_version} is too old; Holdfast needs 3.33 or newer"
        )
    with sqlite_errors(f"opening {path}"):
        target = read_only_uri(path) if read_only else path
        opening = aiosqlite.connect(
            target, timeout=busy_timeout_s, isolation_level=None, uri=read_only
        )
        thread = opening._thread  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        thread.daemon = True  # a process that fails must end, also when this was not closed
        try:
            connection = await opening
            await connection.execute_fetchall(TEMPORARY_IN_MEMORY)
        except BaseException:
            # The thread still calls this loop at its end, and the loop may be closed next.
            await asyncio.to_thread(thread.join, CLOSING_S)
            raise
        return connection


async def _open_writer(path: Path, schema: Schema, busy_timeout_s: float) -> aiosqlite.Connection:
    """Raises MustRebuild, DatabaseUnavailable."""
    writer = await connect(path, busy_timeout_s)
    try:
        await _prepare(writer, path, schema)
    except BaseException:
        await writer.close()
        raise
    return writer


def _connect_reader(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        read_only_uri(path),
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=False,  # another thread may interrupt it
    )
    connection.execute(TEMPORARY_IN_MEMORY)
    return connection


async def _prepare(connection: aiosqlite.Connection, path: Path, schema: Schema) -> None:
    """Make a new file usable, or make sure that an old one is."""
    with sqlite_errors(f"opening {path}"):
        try:
            version = await _pragma(connection, "user_version")
            owner = await _pragma(connection, "application_id")
            tables = await _pragma(connection, "schema_version")
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise MustRebuild(f"{path} is damaged: {error}") from error
        if owner == APPLICATION_ID and version != schema.version:
            raise MustRebuild(f"{path} has schema {version}, this version needs {schema.version}")
        if owner != APPLICATION_ID and (owner or version or tables):
            raise DatabaseUnavailable(f"{path} is not a database of Holdfast: move it away")
        await connection.execute_fetchall("PRAGMA journal_mode=WAL")
        await connection.execute_fetchall("PRAGMA synchronous=NORMAL")
        await connection.execute_fetchall(f"PRAGMA cache_size=-{WRITER_CACHE_KIB}")
        await connection.execute_fetchall(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        if owner == 0:
            await _create(connection, schema)


async def _create(connection: aiosqlite.Connection, schema: Schema) -> None:
    await connection.executescript(
        f"BEGIN IMMEDIATE; {CHECKPOINT_DDL} {schema.ddl} PRAGMA user_version={schema.version};"
        f"PRAGMA application_id={APPLICATION_ID}; COMMIT"
    )


async def _pragma(connection: aiosqlite.Connection, name: str) -> int:
    rows = list(await connection.execute_fetchall(f"PRAGMA {name}"))
    return int(rows[0][0])


class sqlite_errors:  # noqa: N801  (reads as a phrase: with sqlite_errors("the write"))
    """Turn what SQLite, its thread and its rows can raise into DatabaseUnavailable."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if isinstance(error, TimeoutError):
            raise DatabaseUnavailable(f"{self._doing} took too long") from error
        # aiosqlite says ValueError when its connection is closed, msgspec when a row is damaged.
        if isinstance(error, sqlite3.Error | ValueError | OverflowError | OSError):
            raise DatabaseUnavailable(f"{self._doing} failed: {error}") from error
