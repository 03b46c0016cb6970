"""One event as server-sent text: which filters match it, and its bytes, rendered once.

The text is API.md's *Events — server-sent*. ``data`` shows every field of the event, defaults
included; a submitted plan's tasks appear as they were submitted, without defaults.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from streams.log import BadFact, Fact
from streams.plan.events import (
    TYPE_NAMES,
    Checkpointed,
    Completed,
    Event,
    Failed,
    Finished,
    Heartbeat,
    Progress,
    Submitted,
)
from streams.traceparent import trace_id_of

ALL_TYPES: tuple[str, ...] = tuple(TYPE_NAMES.values())
HEARTBEAT = TYPE_NAMES[Heartbeat]
CHECKPOINTED = TYPE_NAMES[Checkpointed]
UNASKED_TYPES = frozenset(ALL_TYPES) - {HEARTBEAT, CHECKPOINTED}
"""What a client gets that names no types: heartbeats and checkpoints only on request."""

FINISHED = TYPE_NAMES[Finished]
PING = b": ping\n"  # no blank line: some clients (httpx-sse) would show it as an empty event

_FIXED_WEIGHT = 400  # bytes that an entry costs besides its JSON, roughly

_encode = msgspec.json.Encoder().encode


class Shown(msgspec.Struct, frozen=True, gc=False):
    """The ``data`` of an event on the stream."""

    sequence: int
    at: datetime
    plan_id: str
    task_id: str | None
    type: str
    trace_id: str | None
    data: dict[str, object]


class FeedEntry(msgspec.Struct, gc=False):
    """One event on its way to clients: where it belongs, and its bytes, rendered on first use."""

    sequence: int
    plan_id: str
    task_id: str | None
    type: str
    weight: int
    at: float
    fact: Fact | None
    rendered: bytes = b""

    def text(self) -> bytes:
        """The complete block, id and closing blank line included; rendered at the first call."""
        if self.fact is not None:
            self.rendered = _rendered(self.fact)
            self.fact = None
        return self.rendered


class Interest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client follows; ``ends`` marks a plan's own stream, which is over when the plan is."""

    plan_id: str | None = None
    task_id: str | None = None
    types: frozenset[str] = UNASKED_TYPES
    ends: bool = False

    def wants(self, entry: FeedEntry) -> bool:
        """Whether the event is to be sent."""
        return (
            entry.type in self.types
            and (self.plan_id is None or entry.plan_id == self.plan_id)
            and (self.task_id is None or entry.task_id == self.task_id)
        )


def entries_of(facts: Iterable[Fact | BadFact], after: int = 0) -> list[FeedEntry]:
    """The entries of the facts above the sequence ``after`` that can be read, not rendered yet."""
    return [
        FeedEntry(
            fact.sequence,
            fact.plan_id,
            fact.task_id,
            TYPE_NAMES[type(fact.event)],
            _FIXED_WEIGHT + (_weight(fact.event) if type(fact.event) in _LARGE else 0),
            fact.at,
            fact,
        )
        for fact in facts
        if isinstance(fact, Fact) and fact.sequence > after
    ]


def _weight(event: Event) -> int:
    """The bytes of the parts that can be large."""
    match event:
        case Completed(output=output):
            return len(output)
        case Progress(data=data):
            return len(data)
        case Checkpointed(value=value):
            return len(value)
        case Failed(error_message=message):
            return len(message)
        case Submitted(context=context, tasks=tasks):
            return len(context) + sum([_FIXED_WEIGHT + len(task.input) for task in tasks])
        case _:
            return 0


_LARGE = frozenset({Checkpointed, Completed, Progress, Failed, Submitted})


def _rendered(fact: Fact) -> bytes:
    """The block of one event; of one that cannot be shown what is known of it, with the reason."""
    try:
        return render(fact)
    except Exception as error:  # noqa: BLE001 - one event must not end the streams of all clients
        name = TYPE_NAMES[type(fact.event)]
        shown: dict[str, object] = {
            "sequence": fact.sequence,
            "plan_id": fact.plan_id,
            "task_id": fact.task_id,
            "type": name,
            "unreadable": repr(error)[:200],
        }
        return signal(name, shown, fact.sequence)


def render(fact: Fact) -> bytes:
    """The complete block of one event."""
    event = fact.event
    name = TYPE_NAMES[type(event)]
    shown = Shown(
        fact.sequence,
        datetime.fromtimestamp(fact.at, UTC),
        fact.plan_id,
        fact.task_id,
        name,
        trace_id_of(fact.origin.traceparent),
        msgspec.structs.asdict(event),
    )
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (
        fact.sequence,
        name.encode(),
        one_line(_encode(shown)),
    )


def one_line(json: bytes) -> bytes:
    """The same JSON without line breaks; what users sent passes through unread, so it has some."""
    if b"\n" in json or b"\r" in json:
        return json.translate(_BREAKS_TO_BLANKS)
    return json


_BREAKS_TO_BLANKS = bytes(0x20 if byte in b"\r\n" else byte for byte in range(256))


def signal(name: str, content: dict[str, object], sequence: int | None = None) -> bytes:
    """A block that is about the stream; with ``sequence`` it moves the client's cursor there."""
    block = b"event: %b\ndata: %b\n\n" % (name.encode(), one_line(_encode(content)))
    return block if sequence is None else b"id: %d\n%b" % (sequence, block)
