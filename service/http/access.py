"""Who asks, and whether the asker may: a token or a session cookie stands for a principal.

Without a tokens file there are no principals, and every request is permitted.
"""

from collections.abc import Mapping
from typing import Any

from service.http.problems import RequestRefused
from service.http.refused_tokens import RefusedTokens
from service.principals.permissions import Permission
from service.principals.principal import Principal
from service.principals.tokens import Tokens, WrongToken

COOKIE = b"holdfast_session"

Scope = Any  # ASGI: its own type is no TypedDict that `get` can be asked of


class Access:
    """Permits a request, or refuses it. ``tokens`` None permits every request."""

    def __init__(self, tokens: Tokens | None, refused: RefusedTokens) -> None:
        self.tokens = tokens
        self._refused = refused

    async def check(
        self, scope: Scope, headers: Mapping[bytes, bytes], permission: Permission | None
    ) -> Principal | None:
        """The principal that asks; None where no tokens are needed.

        Raises RequestRefused (unauthorized, forbidden).
        """
        if self.tokens is None or permission is None:
            return None
        principal = await self.identify(scope, headers)
        if permission not in principal.permissions:
            given = ", ".join(sorted(principal.permissions))
            raise RequestRefused(
                "forbidden", f"this needs the permission {permission}, the token has: {given}"
            )
        return principal

    async def identify(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Principal:
        """The principal of a request to an instance with tokens. Raises RequestRefused."""
        tokens = self.tokens
        if tokens is None:
            raise RequestRefused("not_found", "this instance has no tokens file: no one signs in")
        try:
            principal = _principal(tokens, headers)
        except WrongToken as wrong:
            raise await self.refusal(scope, wrong) from None
        if principal is None:
            raise _unauthorized("a bearer token or a session is needed")
        return principal

    async def refusal(self, scope: Scope, wrong: WrongToken) -> RequestRefused:
        """The refusal of a wrong token or session, after the pause that it costs."""
        await self._refused.note((scope.get("client") or ("unknown", 0))[0], wrong)
        return _unauthorized(str(wrong))


def _principal(tokens: Tokens, headers: Mapping[bytes, bytes]) -> Principal | None:
    """Whom the headers stand for; None when they name no one. Raises WrongToken."""
    if authorization := headers.get(b"authorization"):
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise WrongToken("malformed")
        return tokens.of_token(token.strip())
    session = session_cookie(headers.get(b"cookie", b""))
    return tokens.of_session(session) if session else None


def session_cookie(cookies: bytes) -> bytes:
    """The session in a header `Cookie`, empty when it has none."""
    for cookie in cookies.split(b";"):
        name, _, value = cookie.strip().partition(b"=")
        if name == COOKIE:
            return value
    return b""


def _unauthorized(detail: str) -> RequestRefused:
    return RequestRefused("unauthorized", detail, {"WWW-Authenticate": "Bearer"})
