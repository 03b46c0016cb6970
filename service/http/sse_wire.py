"""Writes events to the socket of one SSE client, and notices when the client takes no more.

An ASGI ``send`` can only wait; it can neither say how much a client has not taken yet nor cut off
one that never will. So events are written to the transport below uvicorn's response, which stays
in charge of its beginning and end. Between them uvicorn's answer is nothing but chunks, and every
write here is one whole chunk. A client of HTTP/1.0 knows no chunks: its answer is the bare bytes,
and ends with the connection.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from projections.feed.client import Gone

ROOM_BYTES = 128 * 1024  # unsent bytes above which a client lags
KERNEL_BUFFER_BYTES = 256 * 1024
SHARED_BYTES = 64 * 1024
VANISHED_S = 30.0  # unacknowledged for so long, a peer counts as gone
GOODBYE_S = 2.0

Scope = Any
Receive = Any
Send = Any


def frame(data: bytes) -> bytes:
    """One chunk of a chunked answer."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class _LastFrame:
    """Many clients are sent the same bytes one after the other; they are framed once."""

    def __init__(self) -> None:
        self._data = self._framed = b""

    def __call__(self, data: bytes) -> bytes:
        if data is not self._data:
            self._data, self._framed = data, frame(data)
        return self._framed


_frame = _LastFrame()


def _bare(data: bytes) -> bytes:
    return data


class SseWire:
    """`projections.feed.client.Sink` on the connection of one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        self._transport = transport_of(receive)
        self._frame: Callable[[bytes], bytes] = _frame
        if scope["http_version"] < "1.1":
            # RFC 9112, 6.1 forbids chunks here; uvicorn would announce them all the same.
            receive.__self__.chunked_encoding = False
            self._frame = _bare
        self._ending: asyncio.Task[None] | None = None
        host, port = scope.get("client") or ("?", 0)
        self._name = f"{host}:{port}"

    @property
    def name(self) -> str:
        """See `Sink.name`."""
        return self._name

    async def begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of the answer, and bound what this connection may hold. Raises Gone."""
        if self._transport.is_closing():  # its socket may be closed, or another connection's by now
            raise Gone
        self._transport.set_write_buffer_limits(high=ROOM_BYTES)
        _bound(self._transport.get_extra_info("socket"))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        # uvicorn answers a request from a client that has gone with silence.
        if self._transport.is_closing():
            raise Gone

    def write(self, data: bytes) -> bool:
        """See `Sink.write`."""
        if self._transport.is_closing():
            raise Gone
        if len(data) >= SHARED_BYTES and self._frame is _frame:
            # What waits here is not copied for its frame: all that wait for an event hold it once.
            self._transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
        else:
            self._transport.write(self._frame(data))
        return self._transport.get_write_buffer_size() <= ROOM_BYTES

    async def drained(self) -> None:
        """See `Sink.drained`."""
        # Writes reach the socket at the end of the loop's turn; only then is it known what is left.
        await asyncio.sleep(0)
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})
        if self._transport.is_closing():
            raise Gone

    def end(self, last: bytes) -> None:
        """See `Sink.end`."""
        if self._ending is None and not self._transport.is_closing():
            self._transport.write(self._frame(last))
            self._ending = asyncio.create_task(self._end(), name="sse goodbye")

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self._transport.abort()  # close() would wait for a client that takes nothing

    async def ended(self) -> None:
        """Wait until what `end` began is done."""
        if self._ending is not None:
            await asyncio.wait([self._ending])


def transport_of(receive: Receive) -> asyncio.Transport:
    """The transport below a request; relies on ``receive`` being a method of uvicorn's cycle."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("event streams need uvicorn's own `receive`, not a wrapped one")
    return cast("asyncio.Transport", transport)


def _bound(connection: socket.socket | None) -> None:
    """Let the kernel hold a bounded amount, and give up on a peer that no longer acknowledges."""
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(VANISHED_S * 1000))
