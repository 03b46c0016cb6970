"""Private files: written for the service's account alone, checked for that, and synced to disk."""

import os
import secrets
import stat
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def write_private(path: Path, content: bytes) -> None:
    """Replace ``path`` as a whole by a file of mode 0600; a link there is replaced, not followed.

    Raises OSError.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)


def read_private(path: Path) -> bytes:
    """The content of a file that is no link. Raises OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return file.read()


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_to_others(path: Path) -> str | None:
    """What other accounts may do with ``path``: "read" or "write"; None: nothing, or no file."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if mode & OTHERS_WRITE:
        return "write"
    return "read" if mode & OTHERS else None
