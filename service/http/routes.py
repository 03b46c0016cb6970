"""Litestar's `get`, `post` and `delete`, without three things that our handlers do not need.

Litestar copies a handler for each guard, so that no guard can change it; ours change nothing. It
makes a response in three steps, for cookies, hooks and backgrounds that no answer here has. And it
looks for a handler's exception handlers again in each request.
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

    _for_exceptions: Any = None

    def resolve_exception_handlers(self) -> Any:  # noqa: ANN401 - a type for type checkers only
        """As Litestar's, once: no layer above a handler changes while requests are answered."""
        if self._for_exceptions is None:
            self._for_exceptions = cast("Any", super()).resolve_exception_handlers()
        return self._for_exceptions

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
