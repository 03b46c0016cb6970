"""The archive of forgotten plans: one compressed file of lines a day, linked by SHA-256.

A file ``2026-11-27.ndjson.gz`` holds entries. An entry is the facts of one plan, each a line
(`service.archive.fact_lines`), and a last line that closes it (`Closing`). Its ``sha256`` is over
``previous`` and all lines of facts before it, and ``previous`` is that of the entry before, in the
same file or in the one before it ("" for the first of all). So a changed, missing or added line
breaks a link. Each entry is a gzip member of its own; one that a crash has cut off is removed when
the archive is opened to write.
"""

import fcntl
import gzip
import hashlib
import os
import zlib
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, Self

import msgspec

from service.archive.fact_lines import line_of
from service.runtime.private_files import sync
from streams.json_values import UNREADABLE
from streams.log import LogMessage
from streams.timestamps import rfc3339

SUFFIX = ".ndjson.gz"
LOCK_FILE = "archive.lock"
READ_BYTES = 256 * 1024
MAX_LINE_BYTES = 64 * 1024 * 1024

_CLOSING = b'{"archived":'


class ArchiveError(Exception):
    """The archive cannot be used; the message says where and why."""


class ArchiveBusy(ArchiveError):
    """Another process writes to the archive."""


class Closing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line of an entry."""

    archived: str
    facts: int
    at: str
    previous: str
    sha256: str


class Archive:
    """A folder to append to; one process at a time. Made by `open`. Everything here blocks."""

    def __init__(self, folder: Path, lock: int) -> None:
        self._folder = folder
        self._lock = lock
        self.previous = ""  # the last entry's SHA-256
        self.unsynced: set[Path] = set()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Lock the folder and find the last entry. Raises ArchiveBusy, ArchiveError, OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        archive = cls(folder, lock)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ArchiveBusy(f"another process writes to {folder}") from None
            archive._go_on()
        except BaseException:
            archive.close()
            raise
        return archive

    def close(self) -> None:
        """Let other processes write."""
        os.close(self._lock)

    def _go_on(self) -> None:
        for path in reversed(files_of(self._folder)):
            cut_off_torn_end(path)
            closings = [line for line in read(path) if isinstance(line, Closing)]
            if closings:
                self.previous = closings[-1].sha256
                return

    def sync(self) -> None:
        """Have every entry that was ended on disk. Raises OSError."""
        for path in list(self.unsynced):
            sync(path)
            self.unsynced.discard(path)

    def begin(self, plan_id: str, at: float) -> "Writing":
        """Begin the entry of a plan at a time in seconds since the epoch. Raises OSError."""
        day = rfc3339(at).partition("T")[0]
        return Writing(self, self._folder / f"{day}{SUFFIX}", plan_id, at)


class Writing:
    """An entry under way: add pages of facts, then `end`, or `abandon` it."""

    def __init__(self, archive: Archive, path: Path, plan_id: str, at: float) -> None:
        self._archive = archive
        self._plan_id = plan_id
        self._at = at
        self._facts = 0
        self._digest = hashlib.sha256(archive.previous.encode())
        self._path = path
        is_new = not path.exists()
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        self._began_at = self._file.seek(0, os.SEEK_END)
        self._member = gzip.GzipFile(fileobj=self._file, mode="wb", mtime=0)
        if is_new:
            sync(path.parent)

    def add(self, page: Iterable[LogMessage]) -> None:
        """Write the next facts. Raises OSError."""
        for message in page:
            line = line_of(message)
            self._digest.update(line)
            self._member.write(line)
            self._facts += 1

    def end(self) -> None:
        """Close the entry; `Archive.sync` has it on disk. Raises OSError."""
        archive, sha256 = self._archive, self._digest.hexdigest()
        closing = Closing(
            archived=self._plan_id,
            facts=self._facts,
            at=rfc3339(self._at),
            previous=archive.previous,
            sha256=sha256,
        )
        self._member.write(msgspec.json.encode(closing) + b"\n")
        self._member.close()
        self._file.close()
        archive.unsynced.add(self._path)
        archive.previous = sha256

    def abandon(self) -> None:
        """Remove what was written of the entry. Raises OSError."""
        self._member.close()
        self._file.flush()
        self._file.truncate(self._began_at)
        self._file.close()


# -- reading ----------------------------------------------------------------------------------


def files_of(folder: Path) -> list[Path]:
    """The files of an archive, oldest first. Raises ArchiveError where there is none."""
    if not folder.is_dir():
        raise ArchiveError(f"there is no archive at {folder}")
    return sorted(folder.glob(f"*{SUFFIX}"))


def read(path: Path) -> Generator[bytes | Closing]:
    """A file's lines of facts, with their line breaks, and after those of a plan their `Closing`.

    Raises ArchiveError where it cannot be read.
    """
    is_open = False
    try:
        with gzip.open(path) as file:
            while line := file.readline(MAX_LINE_BYTES):
                is_open = not line.startswith(_CLOSING)
                yield line if is_open else msgspec.json.decode(line, type=Closing)
    except (OSError, EOFError, zlib.error, *UNREADABLE) as error:
        raise ArchiveError(f"{path} cannot be read: {error}") from error
    if is_open:
        raise ArchiveError(f"{path}: its last entry is not closed")


def verify(folder: Path) -> int:
    """Check every link; answers how many entries there are.

    Raises ArchiveError with the first link that is broken.
    """
    previous, entries = "", 0
    for path in files_of(folder):
        digest, facts = hashlib.sha256(previous.encode()), 0
        for line in read(path):
            if isinstance(line, bytes):
                digest.update(line)
                facts += 1
                continue
            where = f"{path}, entry {entries + 1} of the archive, plan '{line.archived}'"
            if line.previous != previous:
                raise ArchiveError(f"{where}: it does not follow the entry that stands before it")
            if digest.hexdigest() != line.sha256 or facts != line.facts:
                raise ArchiveError(f"{where}: its facts are not those that were written")
            previous, entries = line.sha256, entries + 1
            digest, facts = hashlib.sha256(previous.encode()), 0
    return entries


def cut_off_torn_end(path: Path) -> None:
    """Remove what a crash has left of an entry at the end of a file. Raises OSError."""
    whole = 0
    with path.open("r+b") as file:
        for end in _ends_of_members(file):
            whole = end
        if whole < file.seek(0, os.SEEK_END):
            file.truncate(whole)
            os.fsync(file.fileno())


def _ends_of_members(file: Any) -> Generator[int]:  # noqa: ANN401 - a binary file
    """Where each whole gzip member of a file ends."""
    unpacking, rest, at = zlib.decompressobj(31), b"", 0
    while rest or (rest := file.read(READ_BYTES)):
        try:
            unpacking.decompress(rest)
        except zlib.error:
            return
        if not unpacking.eof:
            at += len(rest)
            rest = b""
            continue
        at += len(rest) - len(unpacking.unused_data)
        rest = unpacking.unused_data
        yield at
        unpacking = zlib.decompressobj(31)
