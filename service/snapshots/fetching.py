"""Gives an instance without read models the newest snapshot, which spares it most of the fold.

Whatever is wrong with the snapshot, the log is folded instead. The start that follows checks the
file as it checks read models of its own, and folds what came after it.
"""

import asyncio
import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog
from msgspec.structs import replace

from projections.read_models.copies import checkpoint_in
from projections.read_models.restore import Settled
from projections.read_models.sqlite_file import DatabaseUnavailable, discard
from service.settings.config import SnapshotSettings
from service.snapshots.fitness import unfitness
from service.snapshots.store import OpenStore
from streams.log import Log, LogReset, LogUnavailable
from streams.snapshot_store import (
    PIECE_BYTES,
    KeptSnapshot,
    ReadModelSnapshot,
    SnapshotStore,
    SnapshotUnavailable,
)

INSTEAD = "the log is folded"

log = structlog.get_logger("holdfast.snapshots")


class FetchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """A log of less than ``worth_facts`` is folded; so is one whose fold would be sooner.

    How long the fetch takes is judged after ``judged_s``, the fold at ``folded_per_s``.
    """

    worth_facts: int = 200_000
    judged_s: float = 5.0
    folded_per_s: float = 50_000.0
    show_s: float = 1.0


def fetch_limits(wanted: SnapshotSettings) -> FetchLimits:
    """The limits where snapshots are taken of smaller logs, too."""
    usual = FetchLimits()
    return replace(usual, worth_facts=min(usual.worth_facts, wanted.every_facts))


class HowFetched(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the file is there, of ``total_bytes``, after ``took_s`` seconds."""

    done_bytes: int
    total_bytes: int
    took_s: float

    @property
    def percent(self) -> float:
        """The share that is there."""
        return 100 * self.done_bytes / max(self.total_bytes, 1)

    @property
    def left_s(self) -> float | None:
        """How many seconds the rest will take at this pace; None: nothing is there yet."""
        if not self.done_bytes:
            return None
        return (self.total_bytes - self.done_bytes) * self.took_s / self.done_bytes

    def __str__(self) -> str:
        """The same as a sentence."""
        done, total = self.done_bytes / 1e6, self.total_bytes / 1e6
        told = f"{done:,.0f} of {total:,.0f} MB of a snapshot of the read models are fetched"
        return told if self.left_s is None else f"{told}, about {self.left_s:.0f} s are left"


Tell = Callable[[HowFetched], None]


async def fetch_read_models(
    path: Path,
    source: Log,
    settled: Settled,
    open_store: OpenStore,
    tell: Tell,
    limits: FetchLimits = FetchLimits(),  # noqa: B008 - it is frozen
) -> bool:
    """Put the newest snapshot to ``path``, if nothing is there; answers whether it was put there.

    ``settled`` answers the state of ``source``. Raises LogUnavailable, LogReset when it does not.
    """
    unfinished = path.with_name(f"{path.name}.fetched")
    discard(unfinished)  # of a process that was killed
    if await asyncio.to_thread(path.exists):
        return False
    state = await settled(0)
    if state.head < limits.worth_facts:
        return False
    try:
        store = await open_store()
        try:
            kept = await store.newest()
            if kept is None:
                log.info("snapshot_not_used", reason="there is none", instead=INSTEAD)
                return False
            if reason := await unfitness(kept.snapshot, state, source):
                raise SnapshotUnavailable(reason)
            await _fetch(store, kept, unfinished, _Progress(kept.snapshot, tell, limits))
        finally:
            await store.close()
        await asyncio.to_thread(_check_contents, unfinished, kept.snapshot)
        discard(path)  # what may lie beside a file that is gone
        unfinished.rename(path)
    except (
        DatabaseUnavailable,
        LogReset,
        LogUnavailable,
        OSError,
        SnapshotUnavailable,
        zlib.error,
    ) as error:
        log.warning("snapshot_not_used", reason=str(error), instead=INSTEAD)
        return False
    finally:
        discard(unfinished)
    return True


async def _fetch(store: SnapshotStore, kept: KeptSnapshot, to: Path, progress: "_Progress") -> None:
    """Write the file and compare it with its SHA-256. Raises SnapshotUnavailable, OSError."""
    snapshot = kept.snapshot
    free = shutil.disk_usage(to.parent).free
    if free < snapshot.bytes:
        raise SnapshotUnavailable(f"{to.parent} has {free:,} of {snapshot.bytes:,} bytes free")
    digest = hashlib.sha256()
    with to.open("xb") as file:
        async for pieces in store.pieces(kept):
            progress.add(await asyncio.to_thread(_write, file, pieces, digest.update))
            if progress.done_bytes > snapshot.bytes:
                break
        await asyncio.to_thread(_sync, file)
    if (progress.done_bytes, digest.hexdigest()) != (snapshot.bytes, snapshot.sha256):
        raise SnapshotUnavailable("it is not the file that was written")
    progress.end()


def _write(file: BinaryIO, pieces: Sequence[bytes], update: Callable[[bytes], None]) -> int:
    """Write what is in ``pieces``; answers how many bytes. Raises zlib.error, OSError."""
    written = 0
    for piece in pieces:
        # A piece that holds more than it may is cut off, and the digest is another one.
        part = zlib.decompressobj().decompress(piece, PIECE_BYTES)
        update(part)
        written += file.write(part)
    return written


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _check_contents(path: Path, snapshot: ReadModelSnapshot) -> None:
    """Raise SnapshotUnavailable for a file that is not as it was described."""
    found = checkpoint_in(path)
    if found is None or (found.epoch, found.sequence) != (snapshot.epoch, snapshot.sequence):
        raise SnapshotUnavailable("its rows are of another sequence than it says")


class _Progress:
    """Shows how far the fetch is, and ends one that takes longer than the fold."""

    def __init__(self, snapshot: ReadModelSnapshot, tell: Tell, limits: FetchLimits) -> None:
        self.done_bytes = 0
        self._snapshot = snapshot
        self._tell = tell
        self._limits = limits
        self._began = self._shown = time.monotonic()

    def add(self, more: int) -> None:
        """So many bytes more are written. Raises SnapshotUnavailable when it is too slow."""
        self.done_bytes += more
        now, limits = time.monotonic(), self._limits
        if now - self._shown < limits.show_s:
            return
        self._shown = now
        took_s, total = now - self._began, self._snapshot.bytes
        so_far = HowFetched(done_bytes=self.done_bytes, total_bytes=total, took_s=took_s)
        left_s = so_far.left_s or 0.0
        fold_s = self._snapshot.sequence / limits.folded_per_s
        if took_s >= limits.judged_s and left_s > fold_s:
            raise SnapshotUnavailable(f"it would take {left_s:.0f} s more, the fold {fold_s:.0f} s")
        log.info("fetching_snapshot", percent=round(so_far.percent, 1), left_s=round(left_s))
        self._tell(so_far)

    def end(self) -> None:
        """All is there."""
        took_s = round(time.monotonic() - self._began, 1)
        log.info("snapshot_fetched", sequence=self._snapshot.sequence, took_s=took_s)
