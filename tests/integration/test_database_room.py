"""The room of rows that are gone goes back to the disk, a part at a time."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from projections.read_models.database import Database
from projections.read_models.restore import SCHEMA, open_read_models
from projections.read_models.sqlite_file import APPLICATION_ID, RoomLimits

ROWS = 60
ROW_BYTES = 100_000
FILL = "INSERT INTO checkpoint (stream, sequence, epoch) VALUES (?, 1, ?)"
EMPTY = "DELETE FROM checkpoint WHERE stream != ?"
LIMITS = RoomLimits(kept_pages=100)


async def filled(path: Path) -> Database:
    """A file of 6 MB, of which nearly all is free again."""
    database = await open_read_models(path)
    await database.write([(FILL, [(f"s{n}", "e" * ROW_BYTES) for n in range(ROWS)])])
    await database.write([(EMPTY, [("s0",)])])
    return database


async def size_when_closed(database: Database, path: Path) -> int:
    await database.close()
    return await asyncio.to_thread(lambda: path.stat().st_size)


async def test_room_goes_back_until_little_is_free(tmp_path: Path) -> None:
    path, free = tmp_path / "x.sqlite", list[int]()
    database = await filled(path)
    for _ in range(4):
        free += await database.read("PRAGMA freelist_count", (), lambda _, row: int(row[0]))
        await database.give_room_back(LIMITS)
    assert free[0] - free[1] == LIMITS.at_once
    assert free[-1] < 100
    assert await size_when_closed(database, path) < ROW_BYTES * 10
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT stream FROM checkpoint").fetchall() == [("s0",)]


async def test_what_a_file_keeps_for_rows_to_come_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    database = await filled(path)
    await database.give_room_back()  # 4,000 pages, more than the file has
    await database.give_room_back(RoomLimits(kept_pages=0, kept_share=0.999))
    assert await size_when_closed(database, path) > ROW_BYTES * ROWS * 0.9


async def test_a_file_of_an_older_version_keeps_its_size_and_works(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"{SCHEMA.ddl} PRAGMA user_version={SCHEMA.version};"
            f"PRAGMA application_id={APPLICATION_ID};"
        )
    database = await filled(path)
    await database.give_room_back(LIMITS)
    assert await size_when_closed(database, path) > ROW_BYTES * ROWS * 0.9
