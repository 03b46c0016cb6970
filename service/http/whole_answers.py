"""Sends an answer whose length is known in one write; any other is left to uvicorn.

uvicorn writes head and body separately, which is a call of the system for each with uvloop, and
searches the name and the value of each header by itself. The bytes that go out are the same.
"""

from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

AsgiMessage = Any
Header = tuple[bytes, bytes]
LENGTH = b"content-length"
UVICORNS_OWN = {b"connection", b"transfer-encoding"}  # headers that change how an answer is sent


class WholeAnswer:
    """An ASGI application in front of ``app`` that answers the one request of ``cycle``."""

    def __init__(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - uvicorn's
        self._cycle = cycle
        self._app = app
        self._start: AsgiMessage | None = None  # held until the body comes, which is at once

    def __call__(self, scope: Any, receive: Any, _: Any) -> Awaitable[None]:  # noqa: ANN401 - uvicorn's
        """Answer it."""
        return self._app(scope, receive, self._send)

    async def _send(self, message: AsgiMessage) -> None:
        start, self._start = self._start, None
        if message["type"] == "http.response.start" and not self._cycle.response_started:
            if LENGTH in dict(message["headers"]):
                self._start = message
                return
        elif start is not None:
            if (whole := self._whole(start, message)) is not None:
                self._write(whole)
                return
            await self._cycle.send(start)
        await self._cycle.send(message)

    def _whole(self, start: AsgiMessage, message: AsgiMessage) -> bytes | None:
        """Head and body as they are sent; None where uvicorn has to decide or to refuse."""
        cycle, body = self._cycle, message.get("body", b"")
        names, values = zip(*start["headers"], strict=True)
        if (
            cycle.flow.write_paused
            or cycle.disconnected
            or not cycle.keep_alive
            or cycle.scope["method"] == "HEAD"
            or message.get("more_body", False)
            or values[names.index(LENGTH)] != b"%d" % len(body)
            or not UVICORNS_OWN.isdisjoint(names)
            or HEADER_RE.search(b"".join(names))
            or HEADER_VALUE_RE.search(b"".join(values))
        ):
            return None
        lines = [b"%b: %b\r\n" % header for header in start["headers"]]
        beginning = _beginning(start["status"], tuple(cycle.default_headers))
        return b"".join((beginning, *lines, b"\r\n", body))

    def _write(self, whole: bytes) -> None:
        cycle = self._cycle
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(whole)
        cycle.message_event.set()
        cycle.on_response()


@lru_cache(64)
def _beginning(status: int, defaults: Sequence[Header]) -> bytes:
    """What every answer with this status begins with."""
    return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % header for header in defaults)
