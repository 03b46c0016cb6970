"""The JWTs of a NATS operator, its accounts and users, as `nsc` makes them."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import nkeys

KINDS = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}
WITHOUT_LIMIT = {"subs": -1, "data": -1, "payload": -1}
ACCOUNT_LIMITS = WITHOUT_LIMIT | {
    "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1,
}  # fmt: skip
JETSTREAM = {"mem_storage": -1, "streams": -1, "consumer": -1}


class Party:
    """An operator, account or user with a key of its own; ``number`` makes keys differ."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self._pair: Any = nkeys.from_seed(nkeys.encode_seed(bytes([number]) * 32, KINDS[kind]))
        self.seed: bytes = self._pair.seed
        self.public: str = self._pair.public_key.decode()

    def signs(self, other: "Party", *, expires: int | None = None, **claims: Any) -> str:
        """A JWT in which this party says what ``other`` is and may do."""
        body: dict[str, Any] = {"iat": int(time.time()), "iss": self.public, "sub": other.public}
        body |= {"jti": other.public, "name": other.kind}
        body |= {"nats": {"type": other.kind, "version": 2, **claims}}
        if expires is not None:
            body["exp"] = expires
        said = f"{_part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_part(body)}"
        return f"{said}.{_base64(self._pair.sign(said.encode()))}"


class Operator:
    """An operator whose server knows its accounts by heart (a memory resolver)."""

    def __init__(self, disk_storage: int = -1) -> None:
        self._key = Party("operator", 1)
        self.account, self.system = Party("account", 2), Party("account", 3)
        limits = ACCOUNT_LIMITS | JETSTREAM | {"disk_storage": disk_storage}
        self._accounts = {
            self.account.public: self._key.signs(self.account, limits=limits),
            self.system.public: self._key.signs(self.system, limits=ACCOUNT_LIMITS),
        }

    @property
    def configuration(self) -> str:
        """The part of a server's configuration that makes it this operator's."""
        known = json.dumps(self._accounts)
        return (
            f"operator: {self._key.signs(self._key)}\nresolver: MEMORY\n"
            f"resolver_preload: {known}\nsystem_account: {self.system.public}\n"
        )


def creds_file(
    path: Path, account: Party, user: Party, *, expires: int | None = None, **claims: Any
) -> Path:
    """A file with the user's JWT and seed, as `nsc generate creds` writes it."""
    token = account.signs(user, expires=expires, **WITHOUT_LIMIT, **claims)
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n",
        encoding="utf-8",
    )
    path.chmod(0o600)
    return path


def _part(content: dict[str, Any]) -> str:
    return _base64(json.dumps(content, separators=(",", ":")).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
