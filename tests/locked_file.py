"""A SQLite file in which nothing can be written for a while, because a writer holds it."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path


@asynccontextmanager
async def locked(path: Path) -> AsyncGenerator[None]:
    """Hold the file's only place for a writer."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        # On a thread: a writer that has the place now may need this loop to free it.
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
