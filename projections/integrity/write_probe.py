"""Asks SQLite whether the readers answer from every table, and whether the file takes writes now.

The read goes the way of every other read. The write has a connection of its own and is one
statement that commits by itself: the lock is held inside SQLite only, for far less than a
millisecond, so the writer of the read models never waits for a probe. Nor does a probe wait for
that writer: while our own transaction is under way the file takes writes, and that is known.

A file that was deleted or replaced while it was open is written to its place again.
"""

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Self

import aiosqlite
import structlog

from projections.integrity.differences import TABLES
from projections.read_models.database import Database
from projections.read_models.sqlite_file import DatabaseUnavailable, connect, sqlite_errors

ANSWER_S = 1.0

log = structlog.get_logger("holdfast.database_probe")
BUSY_TIMEOUT_S = 0.2

# The checkpoints' table is there in every schema; there is no stream of this name.
_WRITE = "INSERT OR REPLACE INTO checkpoint(stream, sequence, epoch) VALUES ('probe', ?, '')"


class DatabaseProbe:
    """Made by `open`; for the loop that ``database`` belongs to."""

    def __init__(self, path: Path, connection: aiosqlite.Connection, database: Database) -> None:
        self._path = path
        self._connection = connection
        self._database = database
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._count = 0

    @classmethod
    async def open(cls, path: Path, database: Database) -> Self:
        """A probe of the file that ``database`` has open. Raises DatabaseUnavailable."""
        return cls(path, await _connect(path), database)

    async def ask(self) -> None:
        """One small read and one small write. Raises DatabaseUnavailable within ANSWER_S."""
        if self._asking is None:
            self._asked_at = monotonic()
            self._asking = asyncio.create_task(self._ask())
        # A question that hangs in the disk is not asked again before it is answered.
        await asyncio.wait([self._asking], timeout=ANSWER_S)
        if not self._asking.done():
            waited_s = monotonic() - self._asked_at
            raise DatabaseUnavailable(f"the database has not answered for {waited_s:.1f} s")
        asked, self._asking = self._asking, None
        await asked

    async def close(self) -> None:
        """Close the file."""
        with sqlite_errors("closing"):
            await self._connection.close()

    async def _ask(self) -> None:
        self._count += 1
        if not await self._database.is_in_place():
            await self._put_back()
        await self._database.run(_a_row_of_each_table, within_s=ANSWER_S)
        before = self._database.transactions
        with sqlite_errors("the probe"):
            try:
                await self._connection.execute_fetchall(_WRITE, (self._count,))
            except sqlite3.OperationalError as error:
                if not (_is_busy(error) and self._is_ours(before)):
                    raise

    async def _put_back(self) -> None:
        """Have the file written again; it has been away, so this raises DatabaseUnavailable."""
        why = f"{self._path} was deleted or replaced while it was open"
        log.warning("database_file_gone", path=str(self._path))
        with suppress(ValueError):  # it is closed since an earlier try
            await self._connection.close()
        await self._database.put_back()
        self._connection = await _connect(self._path)
        log.info("database_file_written_again", path=str(self._path))
        raise DatabaseUnavailable(f"{why}; it was written again")

    def _is_ours(self, before: int) -> bool:
        """Whether it was our own writer that held the lock."""
        return self._database.in_transaction or self._database.transactions != before


async def _connect(path: Path) -> aiosqlite.Connection:
    connection = await connect(path, BUSY_TIMEOUT_S)
    # Copying what was written ahead back into the file is the writer's business.
    await connection.execute_fetchall("PRAGMA wal_autocheckpoint=0")
    await connection.execute_fetchall("PRAGMA synchronous=NORMAL")
    return connection


def _a_row_of_each_table(connection: sqlite3.Connection) -> None:
    for table in ("checkpoint", "audit", *TABLES):
        connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
