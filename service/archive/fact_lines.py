"""One message of the log as a line of JSON, as `holdfast export` and the archive write it.

A payload that is JSON stands in ``payload`` as it is stored, byte for byte unless it has line
breaks; any other one stands in ``payload_base64``.
"""

import base64
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from streams.codec import MESSAGE_ID, split_headers
from streams.json_values import UNREADABLE
from streams.log import Log, LogMessage
from streams.subjects import split_subject
from streams.timestamps import rfc3339

PAGE_MESSAGES = 500
WALKED_MESSAGES = 1_000

_SHOWN = (
    b"Holdfast-Actor",
    b"Holdfast-Instance",
    b"Holdfast-Principal",
    MESSAGE_ID,
    b"traceparent",
    b"tracestate",
)
_encode = msgspec.json.Encoder().encode


async def messages_of(
    log: Log, plan_id: str, last: int | None = None
) -> AsyncGenerator[list[LogMessage]]:
    """All messages of one plan, page by page, in order; none if the log has none.

    ``last`` is a sequence that none of them stands above, if that is known: it saves a question.
    A page is bounded in number and in bytes. Raises LogUnavailable.
    """
    first = await log.first_of(plan_id)
    if first is None:
        return
    after = first.sequence - 1  # the log is walked from here on, not from its beginning
    while page := await log.messages(plan_id, after, PAGE_MESSAGES):
        yield page
        after = page[-1].sequence
        if last is not None and after >= last:
            return


async def messages_of_many(
    log: Log, plans: Mapping[str, int], after: int, most_read: int, most_bytes: int
) -> dict[str, list[LogMessage]]:
    """All messages of plans that lie close together, from one walk through the log.

    ``plans`` are ids with the sequence that none of the plan's messages stands above; ``after``
    lies before all of them. A plan that the walk has not passed when it reaches a bound is left
    out. Raises LogUnavailable.
    """
    found: dict[str, list[LogMessage]] = {plan_id: [] for plan_id in plans}
    last, size, at = max(plans.values()), 0, after
    for _ in range(0, most_read, WALKED_MESSAGES):
        page = await log.messages(None, at, WALKED_MESSAGES)
        for message in page:
            place = split_subject(message.subject)
            if place is not None and (mine := found.get(place[0])) is not None:
                mine.append(message)
                size += len(message.payload) + len(message.headers)
        at = page[-1].sequence if page else last
        if at >= last or size > most_bytes:
            break
    return {plan_id: each for plan_id, each in found.items() if plans[plan_id] <= at}


def line_of(message: LogMessage) -> bytes:
    """The message as one line of JSON, ended by a line break."""
    headers = split_headers(message.headers)
    shown: dict[str, Any] = {
        "sequence": message.sequence,
        "time": rfc3339(message.at),
        "subject": message.subject,
        "event": _text(headers.get(b"Holdfast-Event")),
        "schema": _number(headers.get(b"Holdfast-Schema")),
        "headers": {name.decode(): _text(headers[name]) for name in _SHOWN if name in headers},
    }
    try:
        shown["payload"] = msgspec.Raw(_one_line(message.payload))
    except (ValueError, *UNREADABLE):
        shown["payload_base64"] = base64.b64encode(message.payload).decode()
    return _encode(shown) + b"\n"


def _one_line(payload: bytes) -> bytes:
    """A JSON text without line breaks. Raises what is in UNREADABLE for anything else."""
    msgspec.json.decode(payload)
    payload.decode()
    return msgspec.json.format(payload, indent=-1) if b"\n" in payload else payload


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _number(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() else None
