"""W3C trace context: the trace that a fact belongs to, and the span that stands for an attempt.

https://www.w3.org/TR/trace-context/

A traceparent is ``00-<trace id>-<span id>-<flags>`` in lower-case hex. An attempt's span id is
derived from its plan, task and number, never drawn: every instance names the same span, before
the claim is written and after a restart, and nothing has to be remembered for it.
"""

import random
import re
from functools import lru_cache
from hashlib import blake2b

_traceparent = re.compile(
    r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})"
).fullmatch
# As others send it: a version from the future may have more fields, which are not read (3.2.4).
_received = re.compile(
    r"[ \t]*(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})"
    r"(-.*)?[ \t]*"
).fullmatch
_is_tracestate = re.compile(r"[\x20-\x7e\t]{1,512}").fullmatch
MAX_STATES = 32
_SAMPLED, _NOT_SAMPLED = "01", "00"
_dice = random.Random()  # noqa: S311 - names, no secrets


@lru_cache(maxsize=4_096)  # the facts of an attempt share one, and each is asked a few times
def _parts(traceparent: str) -> tuple[str, str, str] | None:
    """Trace id, span id and the one flag that we know; None for what is no traceparent."""
    found = _traceparent(traceparent)
    return None if found is None else (found[1], found[2], _known_flag(found[3]))


def _known_flag(flags: str) -> str:
    return _SAMPLED if int(flags, 16) & 1 else _NOT_SAMPLED


def received(traceparent: str) -> str | None:
    """What another system sent, in our version (00); None for what is no traceparent."""
    found = _received(traceparent)
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    return f"00-{found[2]}-{found[3]}-{_known_flag(found[4])}"


def received_tracestate(tracestate: str) -> str:
    """What vendors added to a trace, as it is passed on; "" for what is none or too large."""
    states = [state for state in tracestate.split(",") if state.strip()]
    fits = len(states) <= MAX_STATES and all("=" in state for state in states)
    kept = ",".join(state.strip(" \t") for state in states)
    return kept if fits and _is_tracestate(kept) else ""


def new_traceparent() -> str:
    """The beginning of a new trace, sampled."""
    return f"00-{_dice.randrange(1, 2**128):032x}-{new_span_id()}-01"


def new_span_id() -> str:
    """A span id that no other span has."""
    return f"{_dice.randrange(1, 2**64):016x}"


def trace_id_of(traceparent: str) -> str | None:
    """The trace id; None for what is no traceparent (a fact may have been written by hand)."""
    found = _parts(traceparent)
    return None if found is None else found[0]


def span_id_of(traceparent: str) -> str | None:
    """The id of the span that a traceparent names; None for what is no traceparent."""
    found = _parts(traceparent)
    return None if found is None else found[1]


def is_sampled(traceparent: str) -> bool:
    """Whether the trace was sampled where it began."""
    found = _parts(traceparent)
    return found is not None and found[2] == _SAMPLED


@lru_cache(maxsize=16_384)  # more than the leases that one worker renews in turn
def of_attempt(traceparent: str, plan_id: str, task_id: str, attempt: int) -> str:
    """The span of one attempt in the plan's trace; "" for a plan without a trace."""
    found = _parts(traceparent)
    if found is None:
        return ""
    span = blake2b(f"{plan_id}/{task_id}/{attempt}".encode(), digest_size=8).hexdigest()
    return f"00-{found[0]}-{span}-{found[2]}"
