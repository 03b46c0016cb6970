"""Who may ask for what: bearer tokens with roles, or, without a tokens file, this machine only.

A tokens file has one line per token, ``role name token``; ``#`` begins a comment. An operator may
do everything, a worker may also read, a viewer may only read.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

import msgspec

from service.http.problems import RequestRefused
from service.settings.config import ConfigError

KEY = "auth.tokens_file"
SHORTEST_TOKEN = 16
RANK: Mapping[str, int] = {"viewer": 0, "worker": 1, "operator": 2}

_fits = re.compile(r"(viewer|worker|operator)\s+([A-Za-z0-9_.:@/-]{1,128})\s+(\S+)").fullmatch


Role = Literal["viewer", "worker", "operator"]


class Holder(msgspec.Struct, frozen=True):
    """To whom a token was given, and what it allows."""

    name: str
    role: Role


def read_tokens(path: Path) -> dict[bytes, Holder]:
    """The holders by their token's digest. Raises ConfigError, which never shows a token."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{KEY}: {path} cannot be read: {error}") from None
    holders: dict[bytes, Holder] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        found = _fits(text)
        if found is None:
            raise ConfigError(f"{KEY}: {path} line {number}: must be `role name token`")
        role, name, token = found.groups()
        if len(token) < SHORTEST_TOKEN:
            least = f"a token has at least {SHORTEST_TOKEN} characters"
            raise ConfigError(f"{KEY}: {path} line {number}: {least}")
        holders[_digest(token.encode())] = Holder(name, cast("Role", role))
    if not holders:
        raise ConfigError(f"{KEY}: {path} holds no token")
    return holders


def _digest(token: bytes) -> bytes:
    """Tokens are looked up by digest, so the look-up's timing says nothing about them."""
    return hashlib.sha256(token).digest()


class Access:
    """Permits a request, or refuses it."""

    def __init__(self, holders: Mapping[bytes, Holder] | None) -> None:
        self._holders = holders

    def check(self, headers: Mapping[bytes, bytes], role: Role | None) -> str | None:
        """The holder's name; None where no token is needed.

        Raises RequestRefused (unauthorized, forbidden).
        """
        if self._holders is None or role is None:
            return None
        holder = self._holder(headers.get(b"authorization", b""), self._holders)
        if RANK[holder.role] < RANK[role]:
            raise RequestRefused(
                "forbidden", f"this needs the role {role}, the token has {holder.role}"
            )
        return holder.name

    def _holder(self, authorization: bytes, holders: Mapping[bytes, Holder]) -> Holder:
        scheme, _, token = authorization.partition(b" ")
        holder = holders.get(_digest(token.strip()))
        if scheme.lower() != b"bearer" or holder is None:
            detail = "this token is not known" if authorization else "a bearer token is needed"
            raise RequestRefused("unauthorized", detail, {"WWW-Authenticate": "Bearer"})
        return holder
