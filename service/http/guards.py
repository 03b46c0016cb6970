"""The one guard of every route: who may ask, for ids that can exist, with parameters it knows.

A guard runs before the body is read, so a request that is refused here costs nothing.
"""

import re
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.params import QueryParameter

from service.http.instance_parts import parts_of
from service.http.ownership import check_path
from service.http.problems import RequestRefused
from service.http.quotas import client_of
from service.http.schemas import OWNER_PATTERN, PATTERNS
from service.http.strict_json import MAX_BODY_BYTES, check_content_type
from service.principals.permissions import PERMISSIONS, Permission
from streams.subjects import is_id

MAX_QUERY_FIELDS = 50
READING = {"GET", "HEAD", "OPTIONS"}

HttpConnection = ASGIConnection[Any, Any, Any, Any]


class requires:  # noqa: N801 - it reads as a word: guards=[requires("work")]
    """A guard for principals with one of the five permissions; None permits every request.

    ``any_query``: parameters are ignored, for routes that probes ask with parameters of their own.
    """

    def __init__(self, permission: Permission | None, *, any_query: bool = False) -> None:
        if permission is not None and permission not in PERMISSIONS:
            raise ValueError(f"{permission!r} is no permission: {', '.join(PERMISSIONS)}")
        self.permission: Permission | None = permission
        self._any_query = any_query

    async def __call__(self, connection: HttpConnection, handler: BaseRouteHandler) -> None:
        """Raises RequestRefused."""
        scope: Any = connection.scope
        parts = parts_of(scope)
        headers = dict(scope["headers"])
        principal = await parts.access.check(scope, headers, self.permission)
        scope["auth"] = principal
        if ids := scope["path_params"]:
            if "owner" in ids:
                ids["owner"] = _decoded_owner(ids["owner"])
            _check_ids(ids)
            if principal is not None and self.permission == "work":
                await check_path(principal, ids, parts.core.load)
        if scope["query_string"] and not self._any_query:
            _check_query(scope["query_string"], _known_parameters(handler.signature_model))
        if scope["method"] not in READING:
            check_content_type(headers.get(b"content-type", b""))
            if (client := client_of(scope)) is not None:
                parts.quotas.admit_write(client, _announced(headers))


def _announced(headers: dict[bytes, bytes]) -> int:
    """The bytes of the body; one sent in chunks counts as the largest that is accepted."""
    if b"transfer-encoding" in headers:
        return MAX_BODY_BYTES
    return int(headers.get(b"content-length", b"0")[:20] or 0)


def _decoded_owner(encoded: str) -> str:
    owner = unquote(encoded)
    if not re.fullmatch(OWNER_PATTERN, owner):
        raise RequestRefused("not_found", f"no owner can have this name: {PATTERNS[OWNER_PATTERN]}")
    return owner


def _check_ids(ids: dict[str, Any]) -> None:
    for name, value in ids.items():
        if name in {"plan_id", "task_id"} and not is_id(value):
            what = name.removesuffix("_id")
            detail = f"no {what} can have this id: an id has 1 to 64 letters, digits, - or _"
            raise RequestRefused("not_found", detail)


@cache
def _known_parameters(signature: Any) -> frozenset[str]:  # noqa: ANN401 - Litestar's own model
    """The names of the query parameters that a handler declares."""
    return frozenset(
        field.kwarg_definition.name or name
        for name, field in signature._fields.items()
        if isinstance(field.kwarg_definition, QueryParameter)
    )


def _check_query(query_string: bytes, known: frozenset[str]) -> None:
    """Litestar ignores parameters that a handler does not declare, and all but one of a name."""
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except ValueError as error:
        raise RequestRefused("invalid_request", f"query: {error}") from None
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise RequestRefused("invalid_request", f"{name}: given more than once")
    for name in names:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            detail = f"query: there is no parameter '{name}' here; allowed: {allowed}"
            raise RequestRefused("invalid_request", detail)
