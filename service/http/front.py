"""What every request passes before Litestar, and every answer after it.

The origin check (`origin_check`) may refuse it. Both get their names (`tracing`), HEAD is answered
as GET without a body, a request that a stop cancels is answered 503, the answer is
counted with its duration, and the request's span is recorded if spans are wanted. A request that
has waited for too long is answered 503 (`deadlines`).
"""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import suppress
from functools import cache
from typing import Any, Literal, cast

from litestar import Litestar
from litestar.types import HTTPScope, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from service.http.deadlines import CALL_LIMITS, CallLimits, Deadline, Deadlines
from service.http.instance_parts import PARTS, InstanceParts
from service.http.origin_check import OriginCheck
from service.http.problems import RequestRefused
from service.http.responses import send_refusal
from service.http.tracing import RequestTrace, trace_of
from service.signals.metrics.registry import Metrics
from service.signals.tracing.spans import Span, child_of
from streams.traceparent import span_id_of

SERVER_ERROR = 500
# The server cancels what has not ended within its grace period, and a write that is cancelled may
# be stored all the same.
STOPPING = "the instance is stopping; the same request may safely be repeated"
UNKNOWN_ROUTE = "other"
API = "/v1/"
OWNERS = f"{API}owners/"
CLAIMS = f"{API}claims"
EVENT_STREAMS = "/events"  # they have no end that would tell how quick they are
ALLOWING = {204, 405}  # the answers that say which methods are allowed
KINDS = {2: "2xx", 4: "4xx", 5: "5xx"}  # no route answers another kind


class Front:
    """The ASGI application that the web server runs; ``litestar`` is the one behind it."""

    def __init__(
        self,
        litestar: Litestar,
        parts: InstanceParts,
        origin_check: OriginCheck,
        limits: CallLimits = CALL_LIMITS,
    ) -> None:
        core = parts.core
        self.litestar = litestar
        self._parts = parts
        self._origin_check = origin_check
        self._deadlines = Deadlines(limits, core.settings.http.body_timeout_s)
        self._root = core.settings.http.root_path
        self._spans = core.spans
        self._metrics = core.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.litestar(scope, receive, send)
            return
        if self._root and scope["path"].startswith(f"{self._root}/"):
            scope = _below(self._root, scope)
        trace = trace_of(scope)
        bind_contextvars(trace_id=trace.trace_id.decode())  # in this request's own task
        method = scope["method"]
        # The web server, which keeps the request's own scope, leaves the body of a HEAD out.
        inner: Any = {**scope, "method": "GET", "head": True} if method == "HEAD" else scope
        if scope["path"].startswith(OWNERS) and b"%2f" in scope["raw_path"].lower():
            # An owner's slash is none of the path; the guard decodes the owner.
            inner = {**inner, "path": scope["raw_path"].decode("ascii", "replace")}
        inner[PARTS] = self._parts
        deadline = inner["deadline"] = self._deadlines.begin(method)
        named = _Named(send, trace, self._metrics, deadline)
        began_at, began = time.time() if self._spans is not None else 0.0, time.monotonic()
        await self._answer(inner, receive, named, deadline)
        route = inner.get("path_template", UNKNOWN_ROUTE)
        if (kind := route_kind(method, route)) is not None:
            took_s = time.monotonic() - began
            self._metrics.observe("agent.http.request.duration", took_s, route=kind)
        if self._spans is not None:
            self._spans.ended(_span(method, route, trace, named.status, began_at))

    async def _answer(
        self, scope: HTTPScope, receive: Receive, named: "_Named", deadline: Deadline
    ) -> None:
        try:
            self._origin_check.check(scope)
            await self.litestar(scope, deadline.receiving(receive), named)
        except RequestRefused as refused:
            await send_refusal(refused, named)
        except asyncio.CancelledError:
            refusal = deadline.took_back() or RequestRefused("unavailable", STOPPING)
            with suppress(RuntimeError):  # raised by the server when the answer has begun
                await send_refusal(refusal, named)
        finally:
            deadline.over()


def _below(root: str, scope: Scope) -> Any:  # noqa: ANN401 - a scope with other paths
    """The request as a proxy would send it that cuts the path prefix ``root`` off."""
    raw = cast("dict[str, bytes]", scope)["raw_path"]
    return {**scope, "path": scope["path"][len(root) :], "raw_path": raw[len(root) :]}


class _Named:
    """Sends an answer on, with the names of its request and trace."""

    def __init__(
        self, send: Send, trace: RequestTrace, metrics: Metrics, deadline: Deadline
    ) -> None:
        self._metrics = metrics
        self._deadline = deadline
        self._send = send
        self._trace = trace
        self.status = SERVER_ERROR

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self._deadline.answered()
            self.status = message["status"]
            if kind := KINDS.get(self.status // 100):
                self._metrics.count("agent.http.request.total", status=kind)
            headers = list(message.get("headers", ()))
            if self.status in ALLOWING:
                headers = [_with_head(*header) for header in headers]
            headers.append((b"x-request-id", self._trace.request_id))
            headers.append((b"x-trace-id", self._trace.trace_id))
            message["headers"] = headers
        return self._send(message)


def _with_head(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Where GET is allowed, HEAD is, too."""
    if name == b"allow" and b"GET" in value:
        return name, value.replace(b"GET", b"GET, HEAD")
    return name, value


@cache
def route_kind(method: str, route: str) -> Literal["read", "write", "claim"] | None:
    """The kind of request whose duration is counted; None for what is not."""
    if not route.startswith(API) or route.endswith(EVENT_STREAMS):
        return None
    if route == CLAIMS:
        return "claim"
    return "read" if method in ("GET", "HEAD") else "write"


def _span(method: str, route: str, trace: RequestTrace, status: int, began_at: float) -> Span:
    return Span(
        name=f"{method} {route}",
        kind="server",
        # A trace that begins here begins with this span.
        traceparent=child_of(trace.traceparent) if trace.own else trace.traceparent,
        parent_id=span_id_of(trace.traceparent) if trace.own else None,
        began_at=began_at,
        ended_at=time.time(),
        attributes={
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        },
        error_type=str(status) if status >= SERVER_ERROR else None,
    )
