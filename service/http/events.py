"""The routes of the event streams: `GET /v1/events` and `GET /v1/plans/{plan_id}/events`."""

from typing import Any

from litestar import Controller, Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp, Receive, Scope, Send

from projections.feed import Feed, NoStream
from projections.feed.client import Gone, Opening
from projections.feed.entry import ALL_TYPES, UNASKED_TYPES, Interest
from service.http.event_schemas import DESCRIPTION, EVENT_STREAM
from service.http.guards import requires
from service.http.instance_parts import parts_of
from service.http.openapi import BEARER
from service.http.parameters import After, EventTypes, IdFilter, LastEventId, PlanId
from service.http.problems import RequestRefused
from service.http.quotas import client_of
from service.http.request import ApiRequest, is_head
from service.http.responses import refusals
from service.http.routes import get
from service.http.sse_wire import SseWire

RETRY_AFTER_S = 5
LARGEST_SEQUENCE = 2**63 - 1
DIGITS = 19

_REFUSALS = refusals("log_unavailable", "unavailable")
_OVER = {204: ResponseSpec(None, description="the plan has ended and the client has all of it")}

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response[str]):
    """An answer that lasts: it is written by the feed until the client goes or the stream ends."""

    def __init__(
        self,
        feed: Feed,
        interest: Interest,
        after: int | None,
        last_event_id: str | None,
        request: ApiRequest,
    ) -> None:
        """An empty ``last_event_id`` is what some clients send for none."""
        super().__init__(content="", media_type=EVENT_STREAM)
        self._feed = feed
        self._request = request
        self._interest = interest
        self._cursor = after
        # A 400 would end a browser's EventSource for good: it would send the same id again.
        self._unreadable = bool(last_event_id) and not _is_cursor(last_event_id)
        if last_event_id and not self._unreadable:
            self._cursor = int(last_event_id)

    def to_asgi_response(  # pyright: ignore[reportIncompatibleMethodOverride]  # any app will do
        self,
        *_: Any,  # noqa: ANN401
        **__: Any,  # noqa: ANN401
    ) -> ASGIApp:
        """The ASGI application that is the answer."""
        return self.answer

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream to its end.

        Raises RequestRefused, LogUnavailable, LogReset before it begins.
        """
        with parts_of(scope).quotas.one_of("event streams", client_of(scope)):
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._feed.admit()
        if refused is not None:
            raise _refusal(refused, self._interest)
        try:
            opening = await self._feed.prepare(
                self._interest, self._cursor, unreadable=self._unreadable
            )
            if isinstance(opening, Opening) and is_head(scope):
                await _send_head(send)
            elif isinstance(opening, Opening):
                wire = SseWire(scope, receive, send)
                await _serve(self._feed, opening, wire, receive, self._request)
            elif opening is NoStream.OVER:
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                raise _refusal(opening, self._interest)
        finally:
            self._feed.discharge()


async def _send_head(send: Send) -> None:
    """The answer to HEAD: a stream's head, and no stream."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _serve(
    feed: Feed, opening: Opening, wire: SseWire, receive: Receive, request: ApiRequest
) -> None:
    try:
        await wire.begin(_HEADERS)
        client = feed.attach(opening, wire)
    except Gone:
        return
    forget = request.when_ended(lambda: feed.dismiss(client))
    try:
        # Also what wakes us when the feed has ended the answer: there is nothing to receive then.
        while (await receive())["type"] != "http.disconnect":
            pass
        await wire.ended()
    finally:
        forget()
        feed.leave(client)


def _refusal(why: NoStream, interest: Interest) -> RequestRefused:
    if why is NoStream.UNKNOWN_PLAN:
        return RequestRefused("not_found", f"there is no plan '{interest.plan_id}'")
    return RequestRefused("unavailable", why.value, {"Retry-After": str(RETRY_AFTER_S)})


class EventController(Controller):
    """The event streams."""

    path = "/v1"
    tags = ("events",)
    security = BEARER

    @get(
        "/events",
        guards=[requires("read")],
        media_type=EVENT_STREAM,
        response_description=DESCRIPTION,
        responses=_REFUSALS,
    )
    async def all_events(
        self,
        request: ApiRequest,
        plan_id: IdFilter = None,
        task_id: IdFilter = None,
        types: EventTypes = None,
        after: After = None,
        last_event_id: LastEventId = None,
    ) -> Response[str]:
        """Every event of the log, or of one plan or task, from the head or after a cursor."""
        interest = Interest(plan_id=plan_id, task_id=task_id, types=_types(types))
        return EventStream(request.core.feed, interest, after, last_event_id, request)

    @get(
        "/plans/{plan_id:str}/events",
        guards=[requires("read")],
        media_type=EVENT_STREAM,
        response_description=DESCRIPTION,
        responses=_REFUSALS | refusals("not_found") | _OVER,
    )
    async def plan_events(
        self,
        plan_id: PlanId,
        request: ApiRequest,
        task_id: IdFilter = None,
        types: EventTypes = None,
        after: After = None,
        last_event_id: LastEventId = None,
    ) -> Response[str]:
        """A plan's events from its beginning or after a cursor, until it has ended."""
        interest = Interest(plan_id=plan_id, task_id=task_id, types=_types(types), ends=True)
        return EventStream(request.core.feed, interest, after, last_event_id, request)


def _types(asked: str | None) -> frozenset[str]:
    if asked is None:
        return UNASKED_TYPES
    names = frozenset(asked.split(","))
    unknown = sorted(names.difference(ALL_TYPES))
    if unknown:
        allowed = ", ".join(ALL_TYPES)
        raise RequestRefused(
            "invalid_request", f"types: {unknown[0]!r} is none; allowed are {allowed}"
        )
    return names


def _is_cursor(last_event_id: str) -> bool:
    """Whether it can be a sequence; servers that share an origin may have given out other ids."""
    decimal = last_event_id.isascii() and last_event_id.isdecimal()
    return decimal and len(last_event_id) <= DIGITS and int(last_event_id) <= LARGEST_SEQUENCE
