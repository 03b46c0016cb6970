"""The tokens file: TOML with one ``[[token]]`` table for each token, readable by its owner only.

The file keeps the SHA-256 of each secret and never a secret. Whatever is refused is named by its
line; no message repeats a value of the file.
"""

import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from service.principals.permissions import ROLE_NAMES, permissions_of
from service.principals.principal import NAME_WORDS, Principal, is_name
from service.principals.token import digest_of
from service.runtime.private_files import OTHERS
from service.settings.config import ConfigError

KEY = "auth.tokens_file"
LARGEST_FILE = 1024 * 1024  # bytes

_begins_table = re.compile(r"\s*\[\[\s*token\s*\]\]\s*(#.*)?").fullmatch
_is_old_line = re.compile(r"\s*(viewer|worker|operator)\s+\S+\s+\S+\s*(#.*)?").fullmatch
_says_line = re.compile(r"at line (\d+)").search
_says_key = re.compile(r"`\$\.(\w+)").search

ALLOWED: Mapping[str, str] = {
    "id": "8 small letters or digits",
    "sha256": "the 64 hexadecimal digits of a SHA-256, in small letters and none cut off",
    "name": NAME_WORDS,
    "roles": f"a list of at least one of {', '.join(ROLE_NAMES)}",
    "kinds": "a list of at least one kind of task",
    "expires": "a date and time with its offset, as in 2030-01-31T00:00:00Z",
}
"""The keys of a token, and what each may be."""

WEAK_SECRETS = ("", "password", "secret", "token", "changeme", "admin", "test", "holdfast")
WEAK_DIGESTS = frozenset(digest_of(word.encode()) for word in WEAK_SECRETS)
FEWEST_DIGITS = 8  # different ones in a SHA-256; random ones have fewer once in 10^19

Signature = tuple[int, ...] | None
"""What of a file's status changes when the file does; None: it cannot be looked at."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Annotated[str, Meta(pattern=r"^[0-9a-z]{8}$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    name: str
    roles: Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)]
    kinds: (
        Annotated[
            tuple[Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:@/-]{1,128}$")], ...],
            Meta(min_length=1, max_length=256),
        ]
        | None
    ) = None
    expires: Annotated[datetime, Meta(tz=True)] | None = None


def read_tokens(path: Path) -> tuple[dict[str, Principal], Signature]:
    """The principals by the ids of their tokens, and the status of the file that was read.

    Raises ConfigError, which says what to do and shows no value of the file.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            check_private(path, status)
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{KEY}: {path} cannot be read: {error.strerror}") from None
    return parse_tokens(path, content), signature_of(status)


def look_at(path: Path) -> Signature:
    """The file's status now."""
    try:
        return signature_of(path.stat())
    except OSError:
        return None


def signature_of(status: os.stat_result) -> Signature:
    """What of a status changes when the file, its owner or its mode does."""
    return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode, status.st_uid)


def check_private(path: Path, status: os.stat_result) -> None:
    """Refuse a file that other accounts can read or have written. Raises ConfigError."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{KEY}: {path} is not a regular file")
    if status.st_mode & OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(
            f"{KEY}: {path} has mode {mode:04o}, so other accounts can use it; "
            f"run: chmod 600 {path}"
        )
    if status.st_uid not in {os.geteuid(), 0}:
        raise ConfigError(f"{KEY}: {path} belongs to another account; run: chown $(id -u) {path}")


def parse_tokens(path: Path, content: bytes) -> dict[str, Principal]:
    """The principals in the content of a tokens file, by token id. Raises ConfigError."""
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{KEY}: {path} is larger than {LARGEST_FILE} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{KEY}: {path} is not UTF-8 text") from None
    lines = text.splitlines()
    if is_old_format(lines):
        raise ConfigError(
            f"{KEY}: {path} has the format of an earlier version, with tokens in clear; "
            f"run: holdfast token convert {path}"
        )
    tables = _tables(path, text)
    reader = _Reader(path, lines)
    if len(reader.starts) != len(tables):
        raise ConfigError(f"{KEY}: {path} must begin each token with a line [[token]]")
    return reader.principals(tables)


def is_old_format(lines: Sequence[str]) -> bool:
    """Whether the first line that says something is ``role name token``."""
    first = next((line for line in lines if line.strip() and not line.strip().startswith("#")), "")
    return _is_old_line(first) is not None


def _tables(path: Path, text: str) -> list[Any]:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, or a number of 5,000 digits
        found = _says_line(str(error))
        where = f" line {found[1] if found else len(text.splitlines())}"
        raise ConfigError(f"{KEY}: {path}{where}: it is not valid TOML") from None
    tables = document.pop("token", None)
    if document:
        raise ConfigError(f"{KEY}: {path} may hold [[token]] tables only")
    if not isinstance(tables, list) or not tables:
        raise ConfigError(f"{KEY}: {path} holds no token; run: holdfast token add --help")
    return cast("list[Any]", tables)


class _Reader:
    """Reads the tables of one file, and knows the line of each."""

    def __init__(self, path: Path, lines: Sequence[str]) -> None:
        self._path = path
        self._lines = lines
        self.starts = table_starts(lines)

    def principals(self, tables: Sequence[Any]) -> dict[str, Principal]:
        """Raises ConfigError."""
        found: dict[str, Principal] = {}
        seen: dict[str, int] = {}
        for index, table in enumerate(tables):
            entry = self._entry(index, table)
            if _is_weak(entry.sha256):
                raise self._refusal(index, "sha256", "a weak secret; run: holdfast token add")
            if entry.id in found:
                raise self._refusal(index, "id", "another token has the same id")
            if (before := seen.setdefault(entry.sha256, index)) != index:
                line = self._line(before, "sha256")
                raise self._refusal(index, "sha256", f"the token of line {line} has this secret")
            found[entry.id] = Principal(
                id=entry.id,
                digest=bytes.fromhex(entry.sha256),
                name=entry.name,
                permissions=permissions_of(entry.roles),
                kinds=None if entry.kinds is None else frozenset(entry.kinds),
                expires_at=None if entry.expires is None else entry.expires.timestamp(),
            )
        return found

    def _entry(self, index: int, table: Any) -> _Entry:  # noqa: ANN401 - TOML
        try:
            entry = msgspec.convert(table, _Entry)
        except msgspec.ValidationError as error:
            raise self._invalid(index, table, str(error)) from None
        if is_name(entry.name) is None:
            raise self._refusal(index, "name", f"name must be {ALLOWED['name']}")
        if not set(entry.roles).issubset(ROLE_NAMES):
            raise self._refusal(index, "roles", f"roles must be {ALLOWED['roles']}")
        return entry

    def _invalid(self, index: int, table: Any, error: str) -> ConfigError:  # noqa: ANN401
        """The error for a table of another shape, without any of its values."""
        keys: list[str] = list(table) if isinstance(table, dict) else []  # pyright: ignore[reportUnknownArgumentType]
        for key in keys:
            if key not in ALLOWED:
                allowed = ", ".join(ALLOWED)
                return self._refusal(index, key, f"an unknown key; the keys are {allowed}")
        for key in ("id", "sha256", "name", "roles"):
            if key not in keys:
                return self._refusal(index, "", f"this token has no {key}")
        found = _says_key(error)
        key = found[1] if found else ""
        return self._refusal(index, key, f"{key} must be {ALLOWED.get(key, 'a table')}")

    def _refusal(self, index: int, key: str, reason: str) -> ConfigError:
        return ConfigError(f"{KEY}: {self._path} line {self._line(index, key)}: {reason}")

    def _line(self, index: int, key: str) -> int:
        """The line of ``key`` in table ``index``, or of the table."""
        start = self.starts[index]
        following = self.starts[index + 1 : index + 2]
        for number in range(start + 1, following[0] if following else len(self._lines) + 1):
            if self._lines[number - 1].partition("=")[0].strip().strip("\"'") == key:
                return number
        return start


def _is_weak(sha256: str) -> bool:
    """Whether the SHA-256 is that of a guessable word, or has too few different digits."""
    return bytes.fromhex(sha256) in WEAK_DIGESTS or len(set(sha256)) < FEWEST_DIGITS


def table_starts(lines: Sequence[str]) -> list[int]:
    """The numbers of the lines that begin a token, from 1."""
    return [number for number, line in enumerate(lines, 1) if _begins_table(line)]
