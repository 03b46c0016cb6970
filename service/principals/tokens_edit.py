"""Changes a tokens file: adds a token, revokes one, converts the first format.

The new file is written beside the old one with mode 0600, checked, synced and renamed over it, so
that a reader sees one of the two and a crash loses neither. Comments and other tokens stay as they
are.
"""

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec

from service.principals.permissions import ROLE_NAMES
from service.principals.principal import NAME_WORDS, Principal, is_name
from service.principals.token import NewToken, new_token
from service.principals.tokens_file import (
    ALLOWED,
    KEY,
    check_private,
    is_old_format,
    parse_tokens,
    read_tokens,
    table_starts,
)
from service.runtime.private_files import sync
from service.settings.config import ConfigError

HEAD = """\
# Tokens of Holdfast, for auth.tokens_file. Change this file with `holdfast token`.
# sha256 is that of the secret, which is kept nowhere.
"""

_split_old = re.compile(r"(viewer|worker|operator)\s+(\S+)\s+(\S+)").fullmatch


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a new token gives to whom; ``kinds`` empty means every kind of task."""

    name: str
    roles: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    expires: datetime | None = None


def add_token(path: Path, grant: Grant) -> NewToken:
    """Add a token, in a new file if there is none; answers the token. Raises ConfigError."""
    with _locked(path):
        text = _current(path)
        made = new_token()
        while made.id in text:
            made = new_token()
        _replace(path, f"{text.rstrip()}\n\n{_table(made, grant)}")
    return made


def revoke_token(path: Path, token_id: str) -> Principal:
    """Remove a token; answers whose it was. Raises ConfigError."""
    with _locked(path):
        principals = list(read_tokens(path)[0].values())
        index = next((n for n, each in enumerate(principals) if each.id == token_id), None)
        if index is None:
            raise ConfigError(f"{KEY}: {path} holds no token with this id; `holdfast token list`")
        if len(principals) == 1:
            raise ConfigError(
                f"{KEY}: this is the last token, and a service without tokens trusts every "
                "account of its machine: add another one first"
            )
        lines = path.read_text(encoding="utf-8").splitlines()
        first, last = _extent(lines, index)
        kept = [*lines[: first - 1], *lines[last:]]
        _replace(path, "\n".join(kept).rstrip() + "\n")
    return principals[index]


def convert_tokens(path: Path) -> list[tuple[Grant, NewToken]]:
    """Replace a file of ``role name token`` lines; answers new tokens. Raises ConfigError.

    The old tokens stood in clear in the file, so each holder gets a new one.
    """
    with _locked(path):
        grants = _old_grants(path)
        made = [(grant, new_token()) for grant in grants]
        _replace(path, "\n".join([HEAD, *(_table(token, grant) for grant, token in made)]))
    return made


def _old_grants(path: Path) -> list[Grant]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{KEY}: {path} cannot be read as text") from None
    if not is_old_format(lines):
        raise ConfigError(f"{KEY}: {path} does not have the format `role name token`")
    grants: list[Grant] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        found = _split_old(text)
        if found is None:
            raise ConfigError(f"{KEY}: {path} line {number}: must be `role name token`")
        if is_name(found[2]) is None:
            raise ConfigError(f"{KEY}: {path} line {number}: a name must be {NAME_WORDS}")
        grants.append(Grant(name=found[2], roles=(found[1],)))
    return grants


def _current(path: Path) -> str:
    """The file's text, checked; of a new file its first lines."""
    if not path.exists():
        return HEAD
    read_tokens(path)
    return path.read_text(encoding="utf-8")


def _table(token: NewToken, grant: Grant) -> str:
    _check(grant)
    given = [
        "[[token]]",
        f"id = {json.dumps(token.id)}",
        f"sha256 = {json.dumps(token.sha256)}",
        f"name = {json.dumps(grant.name)}",
        f"roles = {json.dumps(grant.roles)}",
    ]
    if grant.kinds:
        given.append(f"kinds = {json.dumps(grant.kinds)}")
    if grant.expires is not None:
        given.append(f"expires = {grant.expires.isoformat(timespec='seconds')}")
    return "\n".join(given) + "\n"


def _check(grant: Grant) -> None:
    if is_name(grant.name) is None:
        raise ConfigError(f"a token's name must be {NAME_WORDS}")
    if not grant.roles or not set(grant.roles).issubset(ROLE_NAMES):
        raise ConfigError(f"a token's roles must be {ALLOWED['roles']}")


def _extent(lines: Sequence[str], index: int) -> tuple[int, int]:
    """The first and the last line of a token's table; comments above the next one are not its."""
    starts = table_starts(lines)
    first = starts[index]
    last = starts[index + 1] - 1 if index + 1 < len(starts) else len(lines)
    while last > first and (not lines[last - 1].strip() or lines[last - 1].startswith("#")):
        last -= 1
    return first, last


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """One change at a time; the folder is locked, because the file is replaced."""
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"{KEY}: {path.parent} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    """Write the whole file. Raises ConfigError; then the old one is as it was."""
    parse_tokens(path, text.encode())
    try:
        # mkstemp gives mode 0600 and a name that did not exist.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                check_private(path, os.fstat(file.fileno()))
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
        sync(path.parent)
    except OSError as error:
        raise ConfigError(f"{KEY}: {path} cannot be written: {error.strerror}") from None
