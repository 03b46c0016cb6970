"""Checkpoints as rows: the newest value of each key of a task, until the task drops them."""

import sqlite3
from typing import Any

from msgspec import Raw

from projections.read_models import bulk
from projections.read_models.bulk import Call
from streams.plan.state import Checkpoint, KeptCheckpoint

# The value comes last, so that SQLite need not read it to restore the rest.
DDL = """
CREATE TABLE checkpoints (
    ordinal INTEGER NOT NULL,
    key TEXT NOT NULL,
    attempt INTEGER,
    sequence INTEGER,
    size INTEGER,
    digest BLOB,
    value BLOB,
    PRIMARY KEY (ordinal, key)
);
CREATE INDEX checkpoints_dropped ON checkpoints(ordinal) WHERE sequence IS NULL;
"""

NAMES = ("ordinal", "key", "attempt", "sequence", "size", "digest", "value")
UPSERT = bulk.insert("checkpoints", NAMES, key_width=2)
# A dropped checkpoint replaces its row in the flush, so that it comes after what it dropped.
REMOVE_DROPPED: Call = ("DELETE FROM checkpoints WHERE sequence IS NULL", [()])

RESTORE = """SELECT c.ordinal, c.key, c.attempt, c.sequence, c.size, c.digest FROM checkpoints c
JOIN tasks t ON t.ordinal = c.ordinal JOIN plans p ON p.first_sequence = t.first_sequence"""


def row_of(kept: KeptCheckpoint) -> bulk.Row:
    """The row of a checkpoint that was kept or dropped, in the order of NAMES."""
    ordinal, key, checkpoint, value = kept
    if checkpoint is None:
        return (ordinal, key, None, None, None, None, None)
    return (
        ordinal,
        key,
        checkpoint.attempt,
        checkpoint.sequence,
        checkpoint.size,
        checkpoint.digest,
        bytes(value),
    )


def restored(_: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[int, str, Checkpoint]:
    """The task's ordinal, the key and the checkpoint in a row of RESTORE, without its value."""
    ordinal, key, attempt, sequence, size, digest = row
    return (
        ordinal,
        key,
        Checkpoint(attempt=attempt, sequence=sequence, size=size, digest=digest),
    )


def of_task(connection: sqlite3.Connection, ordinal: int) -> dict[str, Raw]:
    """What a task has kept, by key."""
    sql = "SELECT key, value FROM checkpoints WHERE ordinal = ? ORDER BY key"
    return {key: Raw(value) for key, value in connection.execute(sql, (ordinal,))}
