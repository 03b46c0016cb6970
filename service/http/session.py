"""Signing in and out: a browser exchanges a token for a cookie that its scripts cannot read.

No instance keeps a session: the cookie proves itself (`service.principals.session`), on any
instance with the same tokens file. It ends with its expiry, with its token, or when the browser
signs out; a copy of it that someone made lives until then.
"""

from typing import Any

import msgspec
from litestar import Controller, Response
from litestar.params import JSONBody

from projections.read_models.views import Moment, moment_or_none
from service.http.access import COOKIE
from service.http.guards import requires
from service.http.instance_parts import parts_of
from service.http.openapi import BEARER
from service.http.problems import RequestRefused
from service.http.request import ApiRequest, header
from service.http.responses import ApiResponse, refusals
from service.http.routes import delete, get, post
from service.http.schemas import SignInBody
from service.principals.permissions import PERMISSIONS, Permission
from service.principals.principal import Principal
from service.principals.tokens import Tokens, WrongToken


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and what the asker may do; ``name`` is null where no tokens are needed.

    ``kinds`` null means every kind of task; ``expires_at`` null means never.
    """

    name: str | None
    permissions: list[Permission]
    kinds: list[str] | None
    expires_at: Moment | None


class SessionController(Controller):
    """`/v1/session`."""

    path = "/v1/session"
    tags = ("session",)

    @post(status_code=200, guards=[requires(None)], responses=refusals("not_allowed"))
    async def sign_in(
        self, data: JSONBody[SignInBody], request: ApiRequest
    ) -> Response[SessionView]:
        """Exchange a token for a session cookie."""
        access = parts_of(request.scope).access
        tokens = _needed(access.tokens)
        try:
            principal, cookie, seconds = tokens.sign_in(data.token.encode())
        except WrongToken as wrong:
            raise await access.refusal(request.scope, wrong) from None
        return ApiResponse(_view(principal), headers=_set_cookie(request, cookie.decode(), seconds))

    @get(guards=[requires(None)], security=BEARER, responses=refusals())
    async def get_session(self, request: ApiRequest) -> SessionView:
        """Who asks, and what the asker may do."""
        access = parts_of(request.scope).access
        if access.tokens is None:
            return _view(None)
        return _view(await access.identify(request.scope, dict(request.scope["headers"])))

    @delete(status_code=200, guards=[requires(None)], responses=refusals(guarded=False))
    async def sign_out(self, request: ApiRequest) -> Response[SessionView]:
        """Forget the session cookie."""
        return ApiResponse(_SIGNED_OUT, headers=_set_cookie(request, "", 0))


_SIGNED_OUT = SessionView(name=None, permissions=[], kinds=None, expires_at=None)


def _view(principal: Principal | None) -> SessionView:
    if principal is None:
        return SessionView(name=None, permissions=list(PERMISSIONS), kinds=None, expires_at=None)
    return SessionView(
        name=principal.name,
        permissions=[each for each in PERMISSIONS if each in principal.permissions],
        kinds=None if principal.kinds is None else sorted(principal.kinds),
        expires_at=moment_or_none(principal.expires_at),
    )


def _needed(tokens: Tokens | None) -> Tokens:
    if tokens is None:
        raise RequestRefused("not_allowed", "this instance has no tokens: sign-in is not needed")
    return tokens


def _set_cookie(request: ApiRequest, value: str, seconds: int) -> dict[str, str]:
    scope: Any = request.scope
    path = request.core.settings.http.root_path or "/"
    parts = [
        f"{COOKIE.decode()}={value}",
        f"Path={path}",
        f"Max-Age={seconds}",
        "HttpOnly",
        "SameSite=Strict",
    ]
    if is_encrypted(scope):
        parts.append("Secure")
    return {"Set-Cookie": "; ".join(parts), "Cache-Control": "no-store"}


def is_encrypted(scope: Any) -> bool:  # noqa: ANN401 - an ASGI scope
    """Whether the browser speaks TLS, to this instance or to a proxy that reports it."""
    return scope["scheme"] == "https" or header(scope, b"x-forwarded-proto").lower() == b"https"
