"""Lets an embedded nats-server put the batches of its log together in memory, not on the disk.

With one replica the server writes an atomic batch into files of its own first, in a folder
``batches`` beside the stream's messages, and then into the log, which it syncs once. The files cost
each batch five more syncs. They serve one thing: a server that ended between two messages of a
batch writes the others when it starts again. In memory they outlive the server, but not the machine
(decision 78).
"""

import os
import stat
from contextlib import suppress
from hashlib import blake2s
from pathlib import Path
from shutil import rmtree

import structlog

from service.runtime.nats_server.process import EmbeddedServerError
from service.runtime.nats_server.write_errors import has_room

BATCHES = "batches"  # nats-server's own name
STREAM_FOLDERS = "jetstream/*/streams/*PLANS"

log = structlog.get_logger("holdfast.nats")


class Staging:
    """A folder in memory for the batches of the log whose store is the folder ``store``."""

    def __init__(self, store: Path, memory: Path) -> None:
        self.folder = memory / blake2s(os.fsencode(store.resolve()), digest_size=8).hexdigest()
        self._store = store
        self._memory = memory
        self._refused = False

    def prepare(self) -> None:
        """Make the folder, or find it as an earlier server left it: a start may need what it holds.

        Raises `EmbeddedServerError` for one that others may read or write.
        """
        for folder in (self._memory, self.folder):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                found = folder.lstat()
            except OSError as error:
                raise EmbeddedServerError(f"nats.staging_dir: {error}") from error
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if not ours or found.st_mode & 0o077:
                allowed = f"{folder} must be a folder of this user, with mode 700"
                raise EmbeddedServerError(f"nats.staging_dir: {allowed}")

    def link(self) -> None:
        """Put the folder where the server looks for it, once the stream is there.

        A server that starts takes the link away, when it has read what stands behind it. So this is
        to be done again and again. It has to wait while a batch stands on the disk, and where the
        memory is full: the server would write no more, and would be restarted for that.
        """
        for stream in self._store.glob(STREAM_FOLDERS):
            place = stream / BATCHES
            if place.is_symlink() or not self._has_room():
                continue
            try:
                with suppress(FileNotFoundError):
                    place.rmdir()
                self._clear()
                place.symlink_to(self.folder)
            except OSError as error:  # a batch came first
                log.debug("batches_on_disk", reason=str(error))
            else:
                log.info("batches_in_memory", folder=str(self.folder))

    def _has_room(self) -> bool:
        refused, self._refused = self._refused, not has_room(self.folder)
        if self._refused and not refused:
            log.warning("batches_on_disk", reason=f"{self.folder} is full")
        return not self._refused

    def _clear(self) -> None:
        """Remove what a server left that was killed; the one that runs has no way here yet."""
        for left in self.folder.iterdir():
            rmtree(left)
