"""Opens the file of the read models: for its writer, its readers, and a look from outside."""

import asyncio
import sqlite3
from pathlib import Path

import aiosqlite
import msgspec

APPLICATION_ID = 0x486F6C64  # "Hold", in the file's header: whose file this is
OLDEST_SQLITE = (3, 33)  # the first with UPDATE … FROM

CLOSING_S = 1.0
# A flush that outgrows the cache is spilled to disk and read back; one of 100,000 rows fits.
WRITER_CACHE_KIB = 64 * 1024
WAL_PAGES = 8_000  # 32 MB written ahead before they are copied into the file
# No temporary files: a read-only root has no folder for them. What would be in them is bounded by
# what waits to be written (`projections.projector.PendingLimits`).
TEMPORARY_IN_MEMORY = "PRAGMA temp_store=MEMORY"


def _as_it_is(value: bytes | bool | None) -> bytes | bool | None:  # noqa: FBT001 - a value
    return value


# For a value of a type without an adapter, sqlite3 of Python 3.11 looks up a method that no type
# has, and makes an error, while it holds the interpreter lock: 0.22 us instead of 0.09.
for _kind in (bytes, bool, type(None)):
    sqlite3.register_adapter(_kind, _as_it_is)


class DatabaseUnavailable(Exception):
    """SQLite did not do it (locked, full, slow, closed, damaged); nothing was changed."""


class MustRebuild(Exception):
    """The file has another schema or is damaged: `discard` it and fold the log again."""


class Schema(msgspec.Struct, frozen=True):
    """The statements that make an empty file usable, and the number of this shape."""

    version: int
    ddl: str


class RoomLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Free pages (4 kB) that a file keeps for rows to come, and how many others go at once."""

    kept_pages: int = 4_000
    kept_share: float = 0.25
    at_once: int = 1_000


def discard(path: Path) -> None:
    """Remove the file and what SQLite keeps beside it; it must not be open."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def read_only_uri(path: Path) -> str:
    """The URI that opens a file for reading only, whatever characters its name has."""
    return f"{path.absolute().as_uri()}?mode=ro"


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


async def open_writer(path: Path, schema: Schema, busy_timeout_s: float) -> aiosqlite.Connection:
    """The writer of a file, made new if it is missing or empty.

    Raises MustRebuild, DatabaseUnavailable.
    """
    writer = await connect(path, busy_timeout_s)
    try:
        await _prepare(writer, path, schema)
    except BaseException:
        await writer.close()
        raise
    return writer


async def open_to_look(path: Path, schema: Schema, busy_timeout_s: float) -> aiosqlite.Connection:
    """A connection that reads only, also beside the file's process. Raises DatabaseUnavailable."""
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
    return connection


def connect_reader(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection that reads only, for a thread. Raises sqlite3.Error."""
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
        if not tables:  # a file keeps what it began with
            await connection.execute_fetchall("PRAGMA auto_vacuum=INCREMENTAL")
        await connection.execute_fetchall("PRAGMA journal_mode=WAL")
        await connection.execute_fetchall("PRAGMA synchronous=NORMAL")
        await connection.execute_fetchall(f"PRAGMA cache_size=-{WRITER_CACHE_KIB}")
        await connection.execute_fetchall(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        if owner == 0:
            await _create(connection, schema)


async def _create(connection: aiosqlite.Connection, schema: Schema) -> None:
    await connection.executescript(
        f"BEGIN IMMEDIATE; {schema.ddl} PRAGMA user_version={schema.version};"
        f"PRAGMA application_id={APPLICATION_ID}; COMMIT"
    )


async def give_free_pages_back(connection: aiosqlite.Connection, limits: RoomLimits) -> None:
    """Make the file shorter if much of it is free; one of an older version stays as it is."""
    free = await _pragma(connection, "freelist_count")
    share = free / max(await _pragma(connection, "page_count"), 1)
    if free > limits.kept_pages and share > limits.kept_share:
        # A script, because each step of this statement returns one page, and others take one step.
        await connection.executescript(f"PRAGMA incremental_vacuum({limits.at_once})")


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
