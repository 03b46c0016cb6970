"""The routes of the event streams: `GET /v1/events` and `GET /v1/plans/{plan_id}/events`."""

from typing import Annotated, Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, PathParameter, QueryParameter
from litestar.types import ASGIApp, Receive, Scope, Send

from projections.feed import Feed, NoStream
from projections.feed.client import Gone, Opening
from projections.feed.entry import ALL_TYPES, UNASKED_TYPES, Interest
from service.http.intake import read_query
from service.http.problems import Problem, Refusal
from service.http.sse_wire import Wire
from streams.subjects import is_id

EVENT_STREAM = "text/event-stream"
RETRY_AFTER_S = 5
LARGEST_SEQUENCE = 2**63 - 1

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class EventsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may stand in the query; `after` is the sequence of the last event seen."""

    plan_id: str | None = None
    task_id: str | None = None
    types: str | None = None
    after: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_SEQUENCE)] | None = None


class PlanEventsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same for the stream of one plan."""

    task_id: str | None = None
    types: str | None = None
    after: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_SEQUENCE)] | None = None


class EventStream(Response[str]):
    """An answer that lasts: it is written by the feed until the client goes or the stream ends."""

    def __init__(self, feed: Feed, interest: Interest, cursor: int | None) -> None:
        super().__init__(content="", media_type=EVENT_STREAM)
        self._feed = feed
        self._interest = interest
        self._cursor = cursor

    def to_asgi_response(  # pyright: ignore[reportIncompatibleMethodOverride]  # any app will do
        self,
        *_: Any,  # noqa: ANN401
        **__: Any,  # noqa: ANN401
    ) -> ASGIApp:
        """The ASGI application that is the answer."""
        return self.answer

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream to its end. Raises Refusal, LogUnavailable, LogReset before that."""
        refused = self._feed.admit()
        if refused is not None:
            raise _refusal(refused, self._interest)
        try:
            opening = await self._feed.prepare(self._interest, self._cursor)
            if isinstance(opening, Opening):
                await _serve(self._feed, opening, Wire(scope, receive, send), receive)
            elif opening is NoStream.OVER:
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                raise _refusal(opening, self._interest)
        finally:
            self._feed.discharge()


async def _serve(feed: Feed, opening: Opening, wire: Wire, receive: Receive) -> None:
    try:
        await wire.begin(_HEADERS)
        client = feed.attach(opening, wire)
    except Gone:
        return
    try:
        # Also what wakes us when the feed has ended the answer: there is nothing to receive then.
        while (await receive())["type"] != "http.disconnect":
            pass
        await wire.ended()
    finally:
        feed.leave(client)


def _refusal(why: NoStream, interest: Interest) -> Refusal:
    if why is NoStream.UNKNOWN_PLAN:
        return Refusal("not_found", f"there is no plan '{interest.plan_id}'")
    return Refusal("unavailable", why.value, {"Retry-After": str(RETRY_AFTER_S)})


def _problem(description: str) -> ResponseSpec:
    return ResponseSpec(
        Problem,
        media_type="application/problem+json",
        description=description,
        generate_examples=False,
    )


_RESPONSES = {
    200: ResponseSpec(
        str, media_type=EVENT_STREAM, description="server-sent events", generate_examples=False
    ),
    400: _problem("`invalid_request`"),
    401: _problem("`unauthorized`"),
    403: _problem("`forbidden`"),
    503: _problem("`log_unavailable`, or `unavailable`: too many streams, or shutting down"),
}
_PLAN_RESPONSES = _RESPONSES | {
    204: ResponseSpec(
        None,
        media_type=MediaType.TEXT,
        description="the plan has ended and the client has seen all of it",
        generate_examples=False,
    ),
    404: _problem("`not_found`"),
}

OptionalId = Annotated[str | None, QueryParameter(required=False)]
After = Annotated[
    str | None,
    QueryParameter(
        required=False,
        description="the sequence of the last event seen; 0 is the beginning of the log",
    ),
]
Types = Annotated[
    str | None, QueryParameter(required=False, description="event types, separated by commas")
]
LastEventId = Annotated[
    str | None,
    HeaderParameter(name="Last-Event-ID", required=False, description="wins over `after`"),
]


# The parameters of the next two are for the OpenAPI document; `read_query` judges them all.


@get("/v1/events", responses=_RESPONSES, media_type=EVENT_STREAM)
async def all_events(
    request: Request[Any, Any, Any],
    state: State,
    plan_id: OptionalId = None,
    task_id: OptionalId = None,
    types: Types = None,
    after: After = None,
    last_event_id: LastEventId = None,
) -> EventStream:
    """Every event of the log, or of one plan or task, from the head or after a cursor."""
    del plan_id, task_id, types, after
    query = read_query(request.scope["query_string"], EventsQuery)
    interest = Interest(
        plan_id=_id("plan_id", query.plan_id),
        task_id=_id("task_id", query.task_id),
        types=_types(query.types),
    )
    return EventStream(state.core.feed, interest, _cursor(last_event_id, query.after))


@get("/v1/plans/{plan_id:str}/events", responses=_PLAN_RESPONSES, media_type=EVENT_STREAM)
async def plan_events(
    request: Request[Any, Any, Any],
    state: State,
    plan_id: Annotated[str, PathParameter()],
    task_id: OptionalId = None,
    types: Types = None,
    after: After = None,
    last_event_id: LastEventId = None,
) -> EventStream:
    """A plan's events from its beginning or after a cursor, until it has ended."""
    del task_id, types, after
    if not is_id(plan_id):
        raise Refusal("not_found", "no plan can have this id: 1 to 64 of A-Z a-z 0-9 _ -")
    query = read_query(request.scope["query_string"], PlanEventsQuery)
    interest = Interest(
        plan_id=plan_id,
        task_id=_id("task_id", query.task_id),
        types=_types(query.types),
        ends=True,
    )
    return EventStream(state.core.feed, interest, _cursor(last_event_id, query.after))


def _id(name: str, asked: str | None) -> str | None:
    if asked is not None and not is_id(asked):
        raise Refusal("invalid_request", f"{name}: an id has 1 to 64 of A-Z a-z 0-9 _ -")
    return asked


def _types(asked: str | None) -> frozenset[str]:
    if asked is None:
        return UNASKED_TYPES
    names = frozenset(asked.split(","))
    unknown = sorted(names.difference(ALL_TYPES))
    if unknown:
        allowed = ", ".join(ALL_TYPES)
        raise Refusal("invalid_request", f"types: {unknown[0]!r} is none; allowed are {allowed}")
    return names


def _cursor(last_event_id: str | None, after: int | None) -> int | None:
    """The cursor asked for; an empty header is what some clients send for none."""
    if not last_event_id:
        return after
    digits = last_event_id.isascii() and last_event_id.isdecimal()
    if not digits or int(last_event_id[:32]) > LARGEST_SEQUENCE:
        raise Refusal("invalid_request", f"Last-Event-ID: {last_event_id[:40]!r} is no sequence")
    return int(last_event_id)
