"""The events of an answer: a stream of server-sent events, or one JSON document, both bounded.

Some servers ignore ``stream`` and answer with a document of any content type; its first
character distinguishes it from a stream.
"""

from collections.abc import AsyncIterator

import httpx

from holdfast_worker.failures import TaskFailed
from holdfast_worker.sse import async_messages

EVENT_BYTES = 4 * 1024 * 1024  # of one event, or of a document
STREAM_BYTES = 128 * 1024 * 1024
QUOTED_CHARACTERS = 200
DONE = "[DONE]"
_DOCUMENT = (b"{", b"[")


async def events_of(response: httpx.Response) -> AsyncIterator[str]:
    """The data of each event, `DONE` included; raises `TaskFailed` beyond the bounds."""
    body = _Body(response)
    await body.begin()
    if body.start.lstrip().startswith(_DOCUMENT):
        whole = b"".join([part async for part in body])
        yield whole.decode(errors="replace")
        return
    any_event = False
    stream = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=body)
    async for event in async_messages(stream):
        body.event_bytes = 0
        any_event = True
        if event.data:
            yield event.data
    if not any_event:
        start = body.start.decode(errors="replace")[:QUOTED_CHARACTERS]
        raise TaskFailed(
            "bad_response", f"the answer is neither an event stream nor JSON: {start!r}"
        )


class _Body(httpx.AsyncByteStream):
    """A body that counts what arrives; it is read as it is, without any decoding."""

    def __init__(self, response: httpx.Response) -> None:
        self._parts = response.aiter_raw()
        self._all_bytes = 0
        self.event_bytes = 0
        self.start = b""

    async def begin(self) -> None:
        """Read until there is something to see."""
        while not self.start.strip():
            part = await anext(self._parts, None)
            if part is None:
                return
            self._count(part)
            self.start = (self.start + part).lstrip()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.start
        async for part in self._parts:
            self._count(part)
            yield part
        yield b"\n\n"  # the last event of a stream that has ended properly may lack its end

    def _count(self, part: bytes) -> None:
        self._all_bytes += len(part)
        self.event_bytes += len(part)
        if self.event_bytes > EVENT_BYTES:
            message = f"one event of the answer is larger than {EVENT_BYTES} bytes"
            raise TaskFailed("bad_response", message, retryable=False)
        if self._all_bytes > STREAM_BYTES:
            message = f"the answer is larger than {STREAM_BYTES} bytes"
            raise TaskFailed("bad_response", message, retryable=False)
