"""The port to snapshots of the read models that are kept in the cluster, beside the log.

Two implementations hold to one contract suite (``tests/contract``): `tests.memory_snapshots`, the
reference, and `streams.jetstream.snapshot_stream.SnapshotStream`, the real one.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec

PIECE_BYTES = 512 * 1024  # no piece holds more, before compression


class SnapshotUnavailable(Exception):
    """A snapshot could not be taken or used; the message says why. Nothing depends on it."""


class ReadModelSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot holds: the read models as of one sequence of the log.

    ``epoch`` is `LogState.epoch`, ``schema`` the version of the read models' tables, ``witness``
    sequence, id and log time of a fact in them. ``bytes`` and ``sha256`` are of the file. It was
    taken ``at`` a log time, in ``took_s`` seconds.
    """

    epoch: str
    schema: int
    sequence: int
    witness: tuple[int, str, float] | None
    bytes: int
    sha256: str
    at: float
    took_s: float


class KeptSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A whole snapshot and where its pieces stand: ``pieces`` messages from ``first`` on."""

    snapshot: ReadModelSnapshot
    subject: str
    first: int
    pieces: int


class SnapshotWriting(Protocol):
    """A snapshot that is being written, by one process at a time.

    Everything raises SnapshotUnavailable, also when another process has begun one meanwhile.
    """

    @property
    def piece_bytes(self) -> int:
        """How many bytes may be compressed into one piece."""
        ...

    async def renew(self) -> None:
        """Show that this process is at it, while there is no piece yet."""
        ...

    async def add(self, piece: bytes) -> None:
        """Keep the next piece."""
        ...

    async def finish(self, snapshot: ReadModelSnapshot) -> None:
        """It is whole: from now on it is the newest one."""
        ...


class SnapshotStore(Protocol):
    """Keeps the newest whole snapshot and one in writing. All of it raises SnapshotUnavailable."""

    async def newest(self) -> KeptSnapshot | None:
        """The newest whole one; None: there is none."""
        ...

    async def begin(self) -> SnapshotWriting | None:
        """Begin one; None while another process writes one."""
        ...

    def pieces(self, kept: KeptSnapshot) -> AsyncGenerator[Sequence[bytes]]:
        """All pieces in their order, a few at a time."""
        ...

    async def close(self) -> None:
        """End the use of it."""
        ...
