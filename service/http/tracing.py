"""Which request and trace an answer belongs to: taken from the request if they fit, else made."""

import random
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from service.signals.tracing.sampling import SAMPLING
from streams.traceparent import received, received_tracestate, trace_id_of

_fits_request_id = re.compile(rb"[A-Za-z0-9_.:/+=@-]{1,128}").fullmatch
_fits_trace_id = re.compile(rb"(?!0{32})[0-9a-f]{32}").fullmatch

_KEY = "holdfast.trace"
_dice = random.Random()  # noqa: S311 - names, no secrets; asking the system for each costs 5 µs


class RequestTrace(msgspec.Struct, frozen=True, gc=False):
    """A request's names. ``own`` says that the trace came with the request, not from here.

    A trace of its own travels (as ``traceparent``, W3C) with every fact that the request leads to;
    without one the facts belong to the trace of their plan, which a submission begins.
    """

    request_id: bytes
    trace_id: bytes
    traceparent: str
    own: bool
    tracestate: str = ""


def trace_of(scope: Mapping[str, Any]) -> RequestTrace:
    """The trace of a request; made once and kept in its scope."""
    trace = scope.get(_KEY)
    if trace is None:
        trace = _read(scope["headers"])
        scope[_KEY] = trace  # type: ignore[index]
    return trace


def _read(headers: Iterable[tuple[bytes, bytes]]) -> RequestTrace:
    request_id = trace_id = b""
    parents: list[str] = []
    states: list[str] = []
    for name, value in headers:
        if name == b"x-request-id" and _fits_request_id(value):
            request_id = value
        elif name == b"x-trace-id" and _fits_trace_id(value):
            trace_id = value
        elif name == b"traceparent":
            parents.append(value.decode("latin-1"))
        elif name == b"tracestate":
            states.append(value.decode("latin-1"))
    made = _dice.randbytes(32).hex()
    # Two of them contradict each other, and neither is believed (W3C).
    parent = received(parents[0]) if len(parents) == 1 else None
    if parent is not None:
        trace_id = (trace_id_of(parent) or "").encode()
    own = bool(trace_id)
    of_trace = trace_id.decode() or made[:32]
    if parent is None:
        parent = f"00-{of_trace}-{made[32:48]}-{SAMPLING.begins(of_trace):02x}"
        states.clear()
    return RequestTrace(
        request_id=request_id or made[48:].encode(),
        trace_id=of_trace.encode(),
        traceparent=parent,
        own=own,
        tracestate=received_tracestate(",".join(states)) if states else "",
    )
