"""Copies of the read models' file: made beside a running instance, and bound to a restored log."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from projections.read_models.sqlite_file import DatabaseUnavailable, read_only_uri


def copy_of(live: Path, to: Path) -> int:
    """Copy the file as of one moment; answers the sequence it has reached.

    Raises DatabaseUnavailable.
    """
    try:
        with closing(sqlite3.connect(read_only_uri(live), uri=True)) as connection:
            connection.execute("VACUUM INTO ?", (str(to),))
        with closing(sqlite3.connect(to)) as connection:
            found = connection.execute(
                "SELECT sequence FROM checkpoint WHERE stream = 'PLANS'"
            ).fetchone()
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"{live} cannot be read: {error}") from error
    return int(found[0]) if found else 0


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
