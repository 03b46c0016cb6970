"""Whether a nats-server has logged that it cannot write, and whether its disk has room again.

After a write to its store has failed, a nats-server keeps that error and answers no publish to the
stream until it is restarted, also when there is room again. It answers every other question.
"""

import re
import shutil
from pathlib import Path

ROOM_BYTES = 16 * 1024 * 1024  # a few messages of the largest size, and the blocks they stand in
MAX_READ_BYTES = 64 * 1024

_write_error = re.compile(
    rb"\[ERR\] (?:Filestore \[.*\] Critical write error|JetStream failed to store a msg).*"
)


class ServerLog:
    """What a server adds to its log file from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = size_of(path)

    def write_error(self) -> str | None:
        """What has been added about a failed write, the last line of it; None when nothing was."""
        found = _write_error.findall(self._added())
        return found[-1].decode(errors="replace").removeprefix("[ERR] ") if found else None

    def _added(self) -> bytes:
        size = size_of(self._path)
        start = self._seen if size >= self._seen else 0  # it has begun a new file
        self._seen = size
        if start == size:
            return b""
        try:
            with self._path.open("rb") as file:
                file.seek(max(start, size - MAX_READ_BYTES))
                return file.read(MAX_READ_BYTES)
        except OSError:
            return b""


def has_room(folder: Path) -> bool:
    """Whether the disk of ``folder`` takes what a server needs to write on."""
    try:
        return shutil.disk_usage(folder).free >= ROOM_BYTES
    except OSError:
        return False


def size_of(path: Path) -> int:
    """The size of a file in bytes; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
