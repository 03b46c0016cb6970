"""Copies of the read models' file: made beside a running instance, and bound to a restored log."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from projections.read_models.database import ReadModelCheckpoint, read_checkpoint
from projections.read_models.sqlite_file import DatabaseUnavailable, read_only_uri

LOOK_STEPS = 10_000  # of SQLite, until it is asked whether to stop: a few milliseconds


def copy_of(live: Path, to: Path, is_stopped: Callable[[], bool] = lambda: False) -> int:
    """Copy the file as of one moment; answers the sequence it has reached.

    Raises DatabaseUnavailable, also soon after ``is_stopped`` says yes.
    """
    try:
        with closing(sqlite3.connect(read_only_uri(live), uri=True)) as connection:
            connection.set_progress_handler(is_stopped, LOOK_STEPS)
            connection.execute("VACUUM INTO ?", (str(to),))
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"{live} cannot be read: {error}") from error
    checkpoint = checkpoint_in(to)
    return checkpoint.sequence if checkpoint is not None else 0


def checkpoint_in(copy: Path) -> ReadModelCheckpoint | None:
    """How far a file that no process has open was folded. Raises DatabaseUnavailable."""
    try:
        with closing(sqlite3.connect(copy)) as connection:
            cursor = connection.execute("SELECT * FROM checkpoint WHERE stream = 'PLANS'")
            found = cursor.fetchone()
            return None if found is None else read_checkpoint(cursor, found)
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"{copy} cannot be read: {error}") from error


def bind(copy: Path, epochs: Mapping[str, str]) -> None:
    """Let the copy belong to restored streams, by name of their checkpoint.

    A restored stream has a new epoch; that the copy was folded from its facts is known to the
    caller. Raises DatabaseUnavailable.
    """
    try:
        with closing(sqlite3.connect(copy)) as connection, connection:
            connection.executemany(
                "UPDATE checkpoint SET epoch = ? WHERE stream = ?",
                [(epoch, stream) for stream, epoch in epochs.items()],
            )
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"{copy} cannot be written: {error}") from error
