"""The data folder belongs to one process at a time, which its lock file names.

`<data_dir>/holdfast.lock` is locked (flock) for as long as the process lives, so a crash frees it;
its first line is the holder as JSON. The file itself stays. The folder is open to the account of
the service alone (mode 0700), because the log, its credentials and the read models are in it.
"""

import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Self

import msgspec
from msgspec.structs import replace

from service.runtime.private_files import OTHERS, OTHERS_WRITE
from streams.json_values import UNREADABLE

LOCK_FILE = "holdfast.lock"
READ_MODELS = "readmodels.sqlite"
PATIENCE_S = 0.3  # `read_holder` holds the lock for an instant; an owner holds it for good
POLL_S = 0.01
MOST_DEAD = 16
MAX_HOLDER_BYTES = 64 * 1024


class FolderHolder(msgspec.Struct, frozen=True):
    """Who holds a data folder; an URL is empty until it is known.

    ``dead`` are the instance ids of earlier holders that were killed, and whose leases may not be
    released yet.
    """

    pid: int
    instance_id: str
    nats_url: str = ""
    http_url: str = ""
    dead: tuple[str, ...] = ()


class DataFolderError(Exception):
    """The data folder cannot be used; the message names the folder and the setting."""


class DataFolderBusy(DataFolderError):
    """Another process holds the data folder; `holder` names it, when it could be read."""

    def __init__(self, data_dir: Path, holder: FolderHolder | None) -> None:
        self.holder = holder
        who = "another process"
        if holder is not None:
            who = f"process {holder.pid} ({holder.instance_id}"
            who += f", serving {holder.http_url})" if holder.http_url else ")"
        super().__init__(
            f"the data folder {data_dir} is in use by {who}: "
            "stop it, or choose another folder with data_dir (HOLDFAST_DATA_DIR)"
        )


class DataFolder:
    """A held data folder: `acquire` it, `announce` the addresses, `release` it.

    A context manager that releases at its end.
    """

    def __init__(self, path: Path, descriptor: int, holder: FolderHolder) -> None:
        self.path = path
        self.holder = holder
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, data_dir: Path, instance_id: str) -> Self:
        """Make the folder where it is missing and lock it.

        Raises `DataFolderBusy` when another process has it and `DataFolderError` when it cannot be
        made or written, belongs to another account, may be written by one, or holds links.
        """
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(data_dir)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            descriptor = os.open(data_dir / LOCK_FILE, flags, 0o600)
        except OSError as error:
            raise DataFolderError(
                f"the data folder {data_dir} cannot be used ({error.strerror}): "
                "choose another one with data_dir (HOLDFAST_DATA_DIR)"
            ) from error
        if not _locked(descriptor, PATIENCE_S):
            holder = _read(descriptor)
            os.close(descriptor)
            raise DataFolderBusy(data_dir, holder)
        # A holder that ends in order leaves no name behind.
        last = _read(descriptor)
        dead = () if last is None else (last.instance_id, *last.dead)[:MOST_DEAD]
        folder = cls(data_dir, descriptor, FolderHolder(os.getpid(), instance_id, dead=dead))
        folder.announce()
        return folder

    def announce(self, *, nats_url: str = "", http_url: str = "") -> None:
        """Write down where this process can be reached; `read_holder` reads it."""
        self.holder = replace(self.holder, nats_url=nats_url, http_url=http_url)
        self._write()

    def forget_dead(self) -> None:
        """The leases of earlier holders are released."""
        self.holder = replace(self.holder, dead=())
        self._write()

    def _write(self) -> None:
        line = msgspec.json.encode(self.holder) + b"\n"
        # One write, then the cut: a reader takes the first line and never sees half of one.
        os.pwrite(self._descriptor, line, 0)
        os.ftruncate(self._descriptor, len(line))

    def release(self) -> None:
        """Give the folder back; saying it twice is saying it once."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _make_private(data_dir: Path) -> None:
    """Close an own folder to other accounts. Raises `DataFolderError` for an unsafe one."""

    def refuse(why: str) -> DataFolderError:
        return DataFolderError(
            f"the data folder {data_dir} {why}, or choose another one with data_dir "
            "(HOLDFAST_DATA_DIR)"
        )

    found = data_dir.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise refuse("is a symbolic link: name the folder that it leads to")
    if found.st_uid != os.geteuid():
        raise refuse(f"belongs to the account {found.st_uid} and not to ours: `chown` it")
    if found.st_mode & OTHERS_WRITE:
        raise refuse("may be written by other accounts: check its contents, and `chmod 700` it")
    for entry in (data_dir, data_dir / "nats"):
        for link in filter(Path.is_symlink, entry.iterdir() if entry.is_dir() else ()):
            raise refuse(f"holds the symbolic link {link.name}: remove it")
    if found.st_mode & OTHERS:
        data_dir.chmod(0o700)


class PreviousHolder(msgspec.Struct, frozen=True):
    """The last holder of a data folder (None: none, or it ended in order), and if it is held."""

    holder: FolderHolder | None
    held: bool


def last_trace(data_dir: Path) -> PreviousHolder | None:
    """The holder in the lock file, also one that crashed; None when there is no such file."""
    try:
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        held = not _locked(descriptor, 0, shared=True)
        return PreviousHolder(_read(descriptor), held=held)
    finally:
        os.close(descriptor)


def read_holder(data_dir: Path) -> FolderHolder | None:
    """The process that holds the folder now; None without one, also after a crash."""
    trace = last_trace(data_dir)
    return trace.holder if trace is not None and trace.held else None


def _locked(descriptor: int, patience_s: float, *, shared: bool = False) -> bool:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        else:
            return True


def _read(descriptor: int) -> FolderHolder | None:
    try:
        return msgspec.json.decode(
            os.pread(descriptor, MAX_HOLDER_BYTES, 0).partition(b"\n")[0], type=FolderHolder
        )
    except UNREADABLE:
        return None
