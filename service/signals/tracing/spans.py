"""Spans: what was done under which trace, from when to when.

A span is written down when it has ended, under ids that facts, answers and headers name anyway;
its parent is the span that the trace it joined names. Without an endpoint there is no recorder,
and nothing makes spans or imports OpenTelemetry (`service.signals.tracing.otlp`).
"""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol

import msgspec

from streams.traceparent import new_span_id, span_id_of, trace_id_of

SpanKind = Literal["server", "internal", "consumer", "client"]


Attributes = dict[str, str | int | float | Sequence[str]]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done. ``traceparent`` names the span itself; times are since the epoch.

    ``parent_id`` None: the trace begins here. ``error_type`` None: it went well.
    """

    name: str
    kind: SpanKind
    traceparent: str
    parent_id: str | None
    began_at: float
    ended_at: float
    attributes: Mapping[str, str | int | float | Sequence[str]] = {}
    error_type: str | None = None


class Recorder(Protocol):
    """Takes spans that have ended; any thread may call it, and it never blocks or raises."""

    def ended(self, span: Span) -> None:
        """Write ``span`` down, unless its trace is not sampled."""
        ...


recorder: ContextVar[Recorder | None] = ContextVar("spans", default=None)
"""Where handlers' calls to the outside are written down; set in the threads that run them."""


def child_of(traceparent: str) -> str:
    """A new span in the trace; "" when there is none."""
    trace_id = trace_id_of(traceparent)
    return "" if trace_id is None else f"00-{trace_id}-{new_span_id()}-{traceparent[-2:]}"


@contextmanager
def calling(traceparent: str, where: str, name: str = "POST") -> Generator[Attributes]:
    """Around a POST to ``where`` (scheme and host): the client's span, where one is recorded.

    Yields its attributes, to which the caller may add what it learns from the answer.
    """
    attributes: Attributes = {"http.request.method": "POST", "url.full": where}
    spans = recorder.get()
    if spans is None or not traceparent:
        yield attributes
        return
    began_at, failed = time.time(), None
    try:
        yield attributes
    except BaseException as error:
        failed = getattr(error, "error_type", type(error).__name__)
        raise
    finally:
        span = Span(
            name=name,
            kind="client",
            traceparent=child_of(traceparent),
            parent_id=span_id_of(traceparent),
            began_at=began_at,
            ended_at=time.time(),
            attributes=attributes,
            error_type=failed,
        )
        spans.ended(span)
