"""One spelling for each JSON value, so that equal values have equal bytes and no others have.

The order of keys, white space, escapes and the spelling of numbers (``1``, ``1.0``, ``1e0``) do not
matter; everything else does: ``true`` is not ``1``. It follows RFC 8785 except that integers are
exact, however long, where the RFC rounds them to 64-bit floating point.
"""

from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from streams.plan.events import Submitted, TaskSpec, Verdict
from streams.plan.limits import DEFAULT_LEASE_S, DEFAULT_TIMEOUT_S

LONGEST_EXPONENT = 400  # no accepted number is larger; beyond it an integer would fill memory

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


def _number(text: str) -> int | float:
    """A number written with a point or an exponent: an integer if its value is one."""
    value = Decimal(text)
    if value.adjusted() > LONGEST_EXPONENT:
        raise ValueError(text)
    return int(value) if value == value.to_integral_value() else float(value) or 0


_decode = msgspec.json.Decoder[Any](float_hook=_number).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def canonical(value: bytes | Raw) -> bytes:
    """The one spelling of a JSON value; what cannot be read is left as it is."""
    try:
        return _encode(_decode(value))
    except _UNREADABLE:
        return bytes(value)


def same_json(a: bytes | Raw, b: bytes | Raw) -> bool:
    """Whether two JSON texts are the same value."""
    return a == b or canonical(a) == canonical(b)


def same_verdict(a: Verdict | None, b: Verdict | None) -> bool:
    """Whether two critics' judgements are the same."""
    if a is None or b is None:
        return a is b
    return a.pass_ == b.pass_ and same_json(a.feedback, b.feedback)


def same_plan(a: Submitted, b: Submitted) -> bool:
    """Whether two settled plans ask for the same; the order of tasks and dependencies is free."""
    return a == b or canonical(_encode(_in_order(a))) == canonical(_encode(_in_order(b)))


def _in_order(plan: Submitted) -> Submitted:
    tasks = (_plain(task) for task in plan.tasks)
    in_order = tuple(sorted(tasks, key=lambda task: task.id))
    return replace(plan, context=_stated(plan.context), tasks=in_order)


def _stated(value: Raw) -> Raw:
    """The same JSON, written even if it is the default: msgspec omits the default object only."""
    return Raw(bytes(value))


def _plain(task: TaskSpec) -> TaskSpec:
    """The task in one spelling; a stored one does not say whether its default times were stated."""
    return replace(
        task,
        input=_stated(task.input),
        depends_on=tuple(sorted(task.depends_on)),
        timeout_s=DEFAULT_TIMEOUT_S if task.timeout_s is None else task.timeout_s,
        lease_s=DEFAULT_LEASE_S if task.lease_s is None else task.lease_s,
    )
