"""How a fact is written into a message and read back out of it, in every shape it was ever stored.

A message is a JSON payload whose ``event`` field names the fact, and headers that say who wrote it
and in which version of the shape. What cannot be read becomes a `BadFact` with the reason: reading
never raises, because one bad message must not stop every view.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

import msgspec

from streams.log import NO_ORIGIN, BadFact, Fact, Origin, Unreadable
from streams.plan.events import TYPE_NAMES, Event, PlanEvent, Submitted, TaskEvent
from streams.subjects import is_id, split_subject

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

# Old shapes, by (event, version): each entry turns the stored object into that of the next version.
# A shape that was ever stored stays here for ever, and its golden file proves it.
UPCASTERS: Mapping[tuple[str, int], Upcaster] = {}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode

HEADER_LINE = b"NATS/1.0\r\n"
MESSAGE_ID = b"Nats-Msg-Id"
_NAME = (b"Holdfast-Event", b"Holdfast-Schema")
_AUTHOR = (b"Holdfast-Actor", b"Holdfast-Instance", b"Holdfast-Principal")

# A block as `encode_headers` writes it, with what the publisher and the server add. Nearly every
# message ever read fits, in less time than it takes to split a block into lines. The lines that
# many messages have in common are taken as they stand.
_VALUE = rb"(\S.*)(?<!\s)"
_ours = re.compile(
    rb"NATS/1\.0\r\n(Holdfast-Event: .*\r\nHoldfast-Schema: .*\r\n)Nats-Msg-Id: %b\r\n"
    rb"((?:Holdfast-Actor: .*\r\n)?(?:Holdfast-Instance: .*\r\n)?"
    rb"(?:Holdfast-Principal: .*\r\n)?)(?:traceparent: %b\r\n)?(?:tracestate: %b\r\n)?"
    rb"(?:Nats-(?!Msg-Id:).*\r\n)*\r\n" % ((_VALUE,) * 3)
).fullmatch


def versions(upcasters: Mapping[tuple[str, int], Upcaster]) -> dict[bytes, int]:
    """The version in which each event is written today: one above its newest old shape."""
    current = {name.encode(): 1 for name in TYPE_NAMES.values()}
    for name, version in upcasters:
        current[name.encode()] = max(current[name.encode()], version + 1)
    return current


_CURRENT = versions(UPCASTERS)
_NAMING = {
    kind: b"Holdfast-Event: %b\r\nHoldfast-Schema: %d\r\n"
    % (name.encode(), _CURRENT[name.encode()])
    for kind, name in TYPE_NAMES.items()
}
_TODAY = frozenset(_NAMING.values())


def encode_payload(event: Event) -> bytes:
    """The message body of ``event``, proven readable. Raises `Unreadable`.

    A fact that cannot be read would leave its task RUNNING for ever, so whatever an owner put into
    one is read back before it is sent. Facts about plans are as they came out of a checked body.
    """
    try:
        payload = _encode(event)
        if isinstance(event, TaskEvent):
            _decode(payload)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise Unreadable(f"{TYPE_NAMES[type(event)]}: {error}") from None
    for name in event.__struct_fields__ if b"null" in payload else ():
        value = getattr(event, name)
        if type(value) is float and not isfinite(value):  # it was written as null
            raise Unreadable(f"{TYPE_NAMES[type(event)]}: {name} is {value}, which JSON lacks")
    return payload


def encode_headers(event: Event, event_id: str, origin: Origin = NO_ORIGIN) -> bytes:
    """The header lines of ``event``, each ended by CRLF, without status line and blank line."""
    author = _author_lines(origin.actor, origin.instance, origin.principal)
    lines = b"%bNats-Msg-Id: %b\r\n%b" % (_NAMING[type(event)], event_id.encode(), author)
    if origin.traceparent:
        lines += b"traceparent: %b\r\n" % _one_line(origin.traceparent)
    if origin.tracestate:
        lines += b"tracestate: %b\r\n" % _one_line(origin.tracestate)
    return lines


@lru_cache(maxsize=1_024)  # an owner writes many facts
def _author_lines(actor: str, instance: str, principal: str) -> bytes:
    lines = b""
    if actor:
        lines += b"Holdfast-Actor: %b\r\n" % _one_line(actor)
    if instance:
        lines += b"Holdfast-Instance: %b\r\n" % _one_line(instance)
    if principal:
        lines += b"Holdfast-Principal: %b\r\n" % _one_line(principal)
    return lines


def _one_line(value: str) -> bytes:
    # A line break in a value would start a header of its own: a client-supplied name adds none.
    if not value.isprintable():
        value = "".join(character if character.isprintable() else " " for character in value)
    return value.strip().encode(errors="replace")


def split_headers(block: bytes) -> dict[bytes, bytes]:
    """A header block, status line included, as names and values; the last of a name wins."""
    found: dict[bytes, bytes] = {}
    for line in block.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            found[name] = value.strip()
    return found


def _heads(block: bytes) -> Sequence[bytes]:
    """What `_ours` finds in a block that is as `encode_headers` writes it, of any other block."""
    headers = split_headers(block)
    return (
        _lines_of(headers, _NAME),
        headers.get(MESSAGE_ID, b""),
        _lines_of(headers, _AUTHOR),
        headers.get(b"traceparent", b""),
        headers.get(b"tracestate", b""),
    )


def _lines_of(headers: Mapping[bytes, bytes], names: Sequence[bytes]) -> bytes:
    found = [(name, headers[name]) for name in names if name in headers]
    return b"".join([b"%b: %b\r\n" % each for each in found])


def decode(
    sequence: int, at: float, subject: str, headers: bytes, payload: bytes
) -> Fact | BadFact:
    """The fact in one message; ``at`` is its stream time in seconds, ``headers`` its raw block."""
    try:
        return _fact(sequence, at, subject, headers, payload)
    except (msgspec.DecodeError, ValueError, KeyError, TypeError, RecursionError) as error:
        return BadFact(sequence, at, subject, f"{type(error).__name__}: {error}")


def _fact(sequence: int, at: float, subject: str, headers: bytes, payload: bytes) -> Fact:
    place = split_subject(subject)
    if place is None:
        raise ValueError("no plan or task can have this subject")
    plan_id, task_id = place
    ours = _ours(headers)
    naming, event_id, author, traceparent, tracestate = (
        _heads(headers) if ours is None else ours.groups(b"")
    )
    event = _decode(payload) if naming in _TODAY else _event(naming, payload)
    if isinstance(event, PlanEvent) is not (task_id is None):
        kind = "plan" if task_id is None else "task"
        raise ValueError(f"{TYPE_NAMES[type(event)]} on the subject of a {kind}")
    if type(event) is Submitted:
        _check_ids(event)
    actor, instance, principal = _author(author)
    origin = Origin(
        actor=actor,
        instance=instance,
        principal=principal,
        traceparent=traceparent.decode("utf-8", "replace"),
        tracestate=tracestate.decode("utf-8", "replace"),
    )
    named = event_id.decode("utf-8", "replace")
    return Fact(sequence, at, plan_id, task_id, event, named, origin)


def _check_ids(event: Submitted) -> None:
    for task in event.tasks:
        if not is_id(task.id):
            raise ValueError(f"a task has no id that can be a subject: {task.id!r}")


def _event(naming: bytes, payload: bytes) -> Event:
    """The event of a message whose lines ``naming`` are not as they are written today."""
    headers = split_headers(naming)
    if _lines_of(headers, _NAME) in _TODAY or _NAME[1] not in headers:
        return _decode(payload)  # without a version it has to be today's shape
    name, version = headers.get(_NAME[0], b"an unnamed event"), int(headers[_NAME[1]])
    return upcast(name.decode(), version, payload, UPCASTERS)


def upcast(
    name: str, version: int, payload: bytes, upcasters: Mapping[tuple[str, int], Upcaster]
) -> Event:
    """The event stored as version ``version`` of ``name``, brought to today's shape step by step.

    Raises ValueError when the shape is unknown, for example written by a newer Holdfast.
    """
    shape = _decode_object(payload)
    current = versions(upcasters).get(name.encode())
    if current is None or not 1 <= version <= current:
        raise ValueError(f"version {version} of {name} is unknown to this program")
    for step in range(version, current):
        shape = upcasters[name, step](shape)
    return _decode(_encode(shape))


@lru_cache(maxsize=1_024)  # the same few write many facts in a row
def _author(lines: bytes) -> tuple[str, str, str]:
    """Actor, instance and principal; "": not named."""
    headers = split_headers(lines)
    actor, instance, principal = [
        headers.get(name, b"").decode("utf-8", "replace") for name in _AUTHOR
    ]
    return actor, instance, principal
