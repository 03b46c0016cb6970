"""The tokens in force: proves credentials, reads the file again, ends what an ended token began.

Lives on the API loop. `run` looks at the file every second, and at once when it is asked to.
"""

import asyncio
import hmac
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import structlog
from msgspec.structs import replace

from service.principals.principal import Principal
from service.principals.session import proves, session_of, split_session
from service.principals.token import digest_of, split_token
from service.principals.tokens_file import Signature, look_at, read_tokens
from service.settings.config import ConfigError

LOOK_S = 1.0
SESSION_S = 12 * 3600
REMEMBERED = 1_024  # sessions whose proof was checked since the file was read

WrongReason = Literal["malformed", "unknown", "wrong", "expired"]
WORDS: dict[WrongReason, str] = {
    "malformed": "this is no token: it must be hf_<id>_<secret>, with none of it cut off",
    "unknown": "this token is not known, or was revoked",
    "wrong": "this token is not known, or was revoked",
    "expired": "this token or session has expired",
}
_NO_DIGEST = bytes(32)
_NO_ONE = Principal(id="", digest=_NO_DIGEST, name="", permissions=frozenset())

log = structlog.get_logger("holdfast.principals")


class WrongToken(Exception):
    """A credential that proves nothing; ``token_id`` is set when the file has such a token."""

    def __init__(self, why: WrongReason, token_id: str | None = None) -> None:
        super().__init__(WORDS[why])
        self.why: WrongReason = why
        self.token_id = token_id


class Tokens:
    """The principals by token id."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        """``now`` is the time of day. Raises ConfigError when the file cannot be used."""
        self._path = path
        self._now = now
        self._principals, self._read = read_tokens(path)
        self._sessions: dict[bytes, Principal] = {}  # by the digest of a cookie that proved right
        self._asked = asyncio.Event()
        self._ends: dict[object, tuple[Principal, Callable[[], object]]] = {}

    def of_token(self, credential: bytes) -> Principal:
        """The holder of a token. Raises WrongToken."""
        found = split_token(credential)
        if found is None:
            raise WrongToken("malformed")
        token_id = found[1].decode()
        # Ids are no secret. An unknown one costs what a known one does.
        principal = self._principals.get(token_id, _NO_ONE)
        if not hmac.compare_digest(digest_of(found[2]), principal.digest):
            raise WrongToken("wrong" if principal.id else "unknown", principal.id or None)
        return self._not_expired(principal)

    def of_session(self, value: bytes) -> Principal:
        """The holder that a session cookie stands for; it ends with the session.

        Raises WrongToken.
        """
        known = self._sessions.get(key := digest_of(value))
        if known is None:
            known = self._proven(value)
            if len(self._sessions) >= REMEMBERED:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[key] = known
        return self._not_expired(known)

    def _proven(self, session: bytes) -> Principal:
        """The holder that a session cookie was made for. Raises WrongToken."""
        found = split_session(session)
        if found is None:
            raise WrongToken("malformed")
        principal = self._principals.get(found[1].decode(), _NO_ONE)
        if not proves(principal, session):
            raise WrongToken("wrong" if principal.id else "unknown", principal.id or None)
        return _ending_at(principal, float(found[2]))

    def sign_in(self, credential: bytes) -> tuple[Principal, bytes, int]:
        """The holder of a token, a session's cookie, and its seconds. Raises WrongToken."""
        principal = self.of_token(credential)
        expires_at = int(self._now()) + SESSION_S
        session = _ending_at(principal, expires_at)
        ends_at = int(session.expires_at or expires_at)
        cookie = session_of(principal, credential.split(b"_", 2)[2], ends_at)
        return session, cookie, max(ends_at - int(self._now()), 0)

    def _not_expired(self, principal: Principal) -> Principal:
        if principal.expires_at is not None and principal.expires_at <= self._now():
            raise WrongToken("expired", principal.id)
        return principal

    # -- what lasts -------------------------------------------------------------------------

    def when_ended(self, principal: Principal, end: Callable[[], object]) -> Callable[[], object]:
        """Call ``end`` once when the principal's token or session ends, also if it has ended.

        Answers a function that cancels this.
        """
        key = object()
        self._ends[key] = (principal, end)
        if not self._holds(principal):
            self._end(key)
        return lambda: self._ends.pop(key, None)

    def _holds(self, principal: Principal) -> bool:
        """Whether the token is in the file as it was, and has not expired."""
        now = self._principals.get(principal.id)
        if now is None or replace(principal, expires_at=now.expires_at) != now:
            return False
        ends_at = [each for each in (principal.expires_at, now.expires_at) if each is not None]
        return not ends_at or min(ends_at) > self._now()

    def _end(self, key: object) -> None:
        _, end = self._ends.pop(key, (None, None))
        if end is not None:
            end()

    # -- reading again ----------------------------------------------------------------------

    def read_again(self) -> None:
        """Let `run` read the file at once."""
        self._asked.set()

    async def run(self) -> None:
        """Read the file again whenever it has changed, for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._asked.wait()
            asked = self._asked.is_set()
            self._asked.clear()
            await self.look(asked=asked)

    async def look(self, *, asked: bool = False) -> None:
        """Read the file if it has changed or ``asked``, and end what no longer holds.

        A file that cannot be used changes nothing; the log says what is wrong with it, once.
        """
        seen = await asyncio.to_thread(look_at, self._path)
        if asked or seen != self._read:
            self._take(*await asyncio.to_thread(_read_or_refuse, self._path, seen))
        for key, (principal, _) in list(self._ends.items()):
            if not self._holds(principal):
                self._end(key)

    def _take(self, principals: dict[str, Principal] | ConfigError, read: Signature) -> None:
        self._read = read
        if isinstance(principals, ConfigError):
            log.error("tokens_refused", error=str(principals))
            return
        before, self._principals = self._principals, principals
        self._sessions.clear()
        log.info(
            "tokens_read",
            tokens=len(principals),
            added=sorted(principals.keys() - before.keys()),
            revoked=sorted(before.keys() - principals.keys()),
        )


def _read_or_refuse(
    path: Path, seen: Signature
) -> tuple[dict[str, Principal] | ConfigError, Signature]:
    try:
        return read_tokens(path)
    except ConfigError as error:
        return error, seen


def _ending_at(principal: Principal, expires_at: float) -> Principal:
    """The principal until the earlier of two ends."""
    if principal.expires_at is not None and principal.expires_at <= expires_at:
        return principal
    return replace(principal, expires_at=float(expires_at))
