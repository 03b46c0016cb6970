"""Server-sent events out of an HTTP answer: the one parser of kit, command line, canary and chat.

httpx-sse ends lines as the standard does, so a text with U+2028 in it stays whole.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import httpx
import msgspec
from httpx_sse import EventSource, ServerSentEvent


class Message(msgspec.Struct, frozen=True):
    """One server-sent event; ``id`` is None when it has none, and then moves no cursor."""

    name: str
    id: int | None
    data: str


def messages(response: httpx.Response) -> Iterator[Message]:
    """The events of a streaming answer, as they come."""
    for each in EventSource(response).iter_sse():
        yield _message(each)


async def async_messages(response: httpx.Response) -> AsyncIterator[Message]:
    """The events of a streaming answer, as they come."""
    async with aclosing(EventSource(response).aiter_sse()) as events:
        async for each in events:
            yield _message(each)


def _message(event: ServerSentEvent) -> Message:
    numbered = event.id.isascii() and event.id.isdecimal()
    return Message(event.event, int(event.id) if numbered else None, event.data)
