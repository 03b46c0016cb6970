"""Takes a snapshot: copies the read models while they are written, and keeps the copy in pieces."""

import asyncio
import hashlib
import shutil
import threading
import time
import zlib
from pathlib import Path

from msgspec.structs import astuple

from projections.read_models.copies import checkpoint_in, copy_of
from projections.read_models.restore import SCHEMA
from projections.read_models.sqlite_file import discard
from streams.snapshot_store import ReadModelSnapshot, SnapshotUnavailable, SnapshotWriting

LEVEL = 1
RENEW_S = 10.0
ROOM = 2  # times the read models: the copy, and what is written ahead while it is made


async def take(
    live: Path, copy: Path, writing: SnapshotWriting, now: float, *, renew_s: float = RENEW_S
) -> ReadModelSnapshot:
    """Keep the read models in the file ``live`` as they are now; ``copy`` is a file in between.

    ``now`` is log time. Raises SnapshotUnavailable, DatabaseUnavailable, OSError.
    """
    began = time.monotonic()
    await asyncio.to_thread(_check_room, live)
    try:
        await _copied(live, copy, writing, renew_s)
        checkpoint = await asyncio.to_thread(checkpoint_in, copy)
        if checkpoint is None or checkpoint.witness is None:
            raise SnapshotUnavailable("the read models hold no fact")
        size, sha256 = await _kept(copy, writing)
        snapshot = ReadModelSnapshot(
            epoch=checkpoint.epoch,
            schema=SCHEMA.version,
            sequence=checkpoint.sequence,
            witness=astuple(checkpoint.witness),
            bytes=size,
            sha256=sha256,
            at=now,
            took_s=time.monotonic() - began,
        )
        await writing.finish(snapshot)
    finally:
        await asyncio.to_thread(discard, copy)  # a large file takes the disk a while
    return snapshot


def _check_room(live: Path) -> None:
    needed, free = ROOM * live.stat().st_size, shutil.disk_usage(live.parent).free
    if free < needed:
        raise SnapshotUnavailable(f"{live.parent} has {free:,} bytes free, {needed:,} are needed")


async def _copied(live: Path, copy: Path, writing: SnapshotWriting, renew_s: float) -> None:
    """Copy the read models, and show that this process is at it meanwhile."""
    await asyncio.to_thread(discard, copy)
    stopped = threading.Event()
    copying = asyncio.create_task(asyncio.to_thread(copy_of, live, copy, stopped.is_set))
    try:
        while not (await asyncio.wait({copying}, timeout=renew_s))[0]:
            await writing.renew()
    except BaseException:
        stopped.set()  # the thread goes on until it sees it, and the file is removed after that
        await asyncio.wait({copying})
        copying.exception()
        raise
    copying.result()


async def _kept(copy: Path, writing: SnapshotWriting) -> tuple[int, str]:
    """Keep the file in pieces; answers its size and its SHA-256."""
    size, digest = 0, hashlib.sha256()
    with copy.open("rb") as file:

        def next_piece() -> tuple[int, bytes]:
            part = file.read(writing.piece_bytes)
            digest.update(part)
            return len(part), zlib.compress(part, LEVEL)

        while (taken := await asyncio.to_thread(next_piece))[0]:
            size += taken[0]
            await writing.add(taken[1])
    return size, digest.hexdigest()
