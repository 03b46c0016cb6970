"""A route is data: method, path, what is asked, what is shown, how it may be refused, and who may.

From it follow both what happens at run time (`serve`) and what the OpenAPI document says, so
they cannot drift apart. The way through is short on purpose: parse, call, encode.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Literal, TypeVar

import msgspec
from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import Operation
from litestar.types import ASGIApp, Receive, Scope
from structlog.contextvars import bind_contextvars

from service.core.core import Core
from service.http.access import Access, Role
from service.http.intake import BodyReader, ClientGone, read_body, read_query
from service.http.problems import Refusal
from service.http.reply import Reply, tell
from service.http.schemas import NoQuery
from service.http.tracing import Trace, trace_of
from service.signals.tracing.spans import Span, child_of
from streams.log import Origin
from streams.subjects import is_id
from streams.traceparent import span_id_of

Asked = TypeVar("Asked", bound=msgspec.Struct)
Headers = dict[bytes, bytes]

SERVER_ERROR = 500
JSON_BODY = b"application/json"
LOG_TROUBLE = ("log_unavailable", "log_full", "contended", "too_large")
READ_TROUBLE = ("behind", "database_unavailable")


class Call(Generic[Asked]):
    """One request that fits: what is asked of which plan and task, and by whom."""

    __slots__ = ("asked", "core", "headers", "name", "plan_id", "receive", "scope", "task_id")

    def __init__(
        self,
        core: Core,
        asked: Asked,
        scope: Scope,
        receive: Receive,
        headers: Headers,
        name: str | None,
    ) -> None:
        self.core = core
        self.asked = asked
        self.scope = scope
        self.receive = receive
        self.headers = headers
        self.name = name
        ids: dict[str, str] = scope["path_params"]
        self.plan_id = ids.get("plan_id", "")
        self.task_id = ids.get("task_id", "")

    def origin(self, actor: str | None = None, *, begins: bool = False) -> Origin:
        """Who acts: ``actor``, or whoever holds the token, or "operator".

        A request that brought no trace joins that of the plan it is about, unless it ``begins`` it.
        """
        trace = trace_of(self.scope)
        return Origin(
            actor=actor or self.name or "operator",
            instance=self.core.instance_id,
            traceparent=trace.traceparent if trace.own or begins else "",
        )


Handle = Callable[[Call[Asked]], Awaitable[Reply]]


class Route(Generic[Asked]):
    """One row of the table of routes."""

    def __init__(  # noqa: PLR0913 - a row has as many columns as it has
        self,
        handle: Handle[Asked],
        *,
        method: Literal["GET", "POST"],
        path: str,
        asks: type[Asked],
        shows: Any,  # noqa: ANN401 - any type that msgspec can describe
        refuses: tuple[str, ...],
        role: Role | None,
        status: dict[int, str],
        optional_body: bool,
        headers: dict[str, str],
    ) -> None:
        self.handle = handle
        self.method: Literal["GET", "POST"] = method
        self.path = path
        self.asks = asks
        self.shows = shows
        self.refuses = refuses
        self.role: Role | None = role
        self.status = status
        self.optional_body = optional_body
        self.headers = headers
        self.reads_body = method == "POST"
        self.read = BodyReader(asks)

    async def call(self, core: Core, access: Access, scope: Scope, receive: Receive) -> Reply:
        """Answer one request, and write its span down if anybody wants it."""
        if core.spans is None:
            return await self._call(core, access, scope, receive)
        began_at = time.time()
        reply = await self._call(core, access, scope, receive)
        core.spans.ended(self._span(trace_of(scope), reply.status, began_at))
        return reply

    def _span(self, trace: Trace, status: int, began_at: float) -> Span:
        return Span(
            name=f"{self.method} {self.path}",
            kind="server",
            # A trace that begins here begins with this span.
            traceparent=child_of(trace.traceparent) if trace.own else trace.traceparent,
            parent_id=span_id_of(trace.traceparent) if trace.own else None,
            began_at=began_at,
            ended_at=time.time(),
            attributes={
                "http.request.method": self.method,
                "http.route": self.path,
                "http.response.status_code": status,
            },
            error_type=str(status) if status >= SERVER_ERROR else None,
        )

    async def _call(self, core: Core, access: Access, scope: Scope, receive: Receive) -> Reply:
        """Parse, call, and turn whatever goes wrong into a problem."""
        bind_contextvars(trace_id=trace_of(scope).trace_id.decode())  # in this request's own task
        try:
            headers: Headers = dict(scope["headers"])
            name = access.check(headers, self.role)
            _check_ids(scope["path_params"])
            if self.reads_body:
                asked = await self._asked_in_body(scope, receive, headers)
            else:
                asked = read_query(scope["query_string"], self.asks)
            return await self.handle(Call(core, asked, scope, receive, headers, name))
        except ClientGone:
            return Reply(b"", 400)  # nobody is there to read it
        except Exception as error:  # noqa: BLE001 - the table of problems knows what it means
            return tell(error)

    async def _asked_in_body(self, scope: Scope, receive: Receive, headers: Headers) -> Asked:
        if scope["query_string"]:
            read_query(scope["query_string"], NoQuery)
        body = await read_body(receive, headers.get(b"content-length"))
        if not body and self.optional_body:
            body = b"{}"
        else:
            _check_content_type(headers.get(b"content-type", b""))
        return self.read(body)


def _check_ids(ids: dict[str, str]) -> None:
    for name, value in ids.items():
        if name in {"plan_id", "task_id"} and not is_id(value):
            what = name.removesuffix("_id")
            raise Refusal("not_found", f"no {what} can have this id: 1 to 64 of A-Z a-z 0-9 _ -")


def _check_content_type(given: bytes) -> None:
    """JSON must be called JSON: a browser then asks before it sends it from a stranger's page."""
    if given != JSON_BODY and given.partition(b";")[0].strip().lower() != JSON_BODY:
        raise Refusal("invalid_request", "Content-Type: it must be application/json")


def route(
    line: str,
    *,
    asks: type[Asked],
    shows: Any,  # noqa: ANN401 - see Route
    refuses: tuple[str, ...] = (),
    role: Role | None = "viewer",
    status: dict[int, str] | None = None,
    optional_body: bool = False,
    headers: dict[str, str] | None = None,
) -> Callable[[Handle[Asked]], Route[Asked]]:
    """Declare a route: ``line`` is "METHOD /path/{plan_id}"; ``status`` the successes' meanings."""
    method, path = line.split()

    def declare(handle: Handle[Asked]) -> Route[Asked]:
        return Route(
            handle,
            method="POST" if method == "POST" else "GET",
            path=path,
            asks=asks,
            shows=shows,
            refuses=refuses,
            role=role,
            status=status or {200: "Done" if method == "POST" else "Found"},
            optional_body=optional_body,
            headers=headers or {},
        )

    return declare


def litestar_handler(
    row: Route[Any], core: Core, access: Access, operation: type[Operation]
) -> HTTPRouteHandler:
    """The row as Litestar knows it; ``operation`` describes it in the OpenAPI document."""

    async def serve(request: Request[Any, Any, Any]) -> ASGIApp:
        return await row.call(core, access, request.scope, request.receive)

    name = row.handle.__name__
    path = row.path.replace("_id}", "_id:str}").replace("{name}", "{name:str}")
    return HTTPRouteHandler(
        path,
        http_method=row.method,
        operation_class=operation,
        operation_id=name,
        summary=(row.handle.__doc__ or name).partition("\n")[0],
        status_code=200,
    )(serve)
