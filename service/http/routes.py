"""Litestar's `get`, `post` and `delete`, without two things that our handlers do not need.

Litestar copies a handler for each guard, so that no guard can change it; ours change nothing. And
it makes a response in three steps, for cookies, hooks and backgrounds that no answer here has.
"""

from functools import partial
from typing import Any, cast

from litestar import Litestar, Request
from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp
from msgspec import Struct

from service.http.responses import JSON_TYPE, ApiResponse


class Route(HTTPRouteHandler):
    """A handler of HTTP requests."""

    async def authorize_connection(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Run the guards."""
        for guard in cast("Any", self).resolve_guards():
            await guard(connection, self)

    async def to_response(
        self, app: Litestar, data: object, request: Request[Any, Any, Any]
    ) -> ASGIApp:
        """What the handler answered, as it is sent."""
        if isinstance(data, ApiResponse):
            answer = cast("ApiResponse[Any]", data)
            answer.status_code = answer.status_code or self.status_code
            return answer
        if isinstance(data, Struct):
            return ApiResponse(data, status_code=self.status_code, media_type=JSON_TYPE)
        return await cast("Any", super()).to_response(app, data, request)


get = partial(Route, http_method="GET")
post = partial(Route, http_method="POST")
delete = partial(Route, http_method="DELETE")
