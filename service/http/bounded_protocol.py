"""uvicorn's protocol with bounds: on connections, on the bytes of a head, on a request's time.

httptools collects a header that has not ended byte by byte, without a bound and at quadratic cost:
one of 256 MiB held the loop for 90 s. So a connection may send `ConnectionLimits.head_bytes` at
most before a head, a piece of a body or a request ends. This relies on the names of httptools'
callbacks in uvicorn's class, and on `flow.read_paused`; the test beside it fails when they change.
"""

import asyncio
import logging
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.http.problems import PROBLEM_TYPE, problem_of
from service.http.request import CLIENT
from service.http.shares import Shares, client_at
from service.http.whole_answers import WholeAnswer

# uvicorn warns of each malformed request, so that any client could fill the disk.
_ERRORS = logging.getLogger("holdfast.http.protocol")
_ERRORS.setLevel(logging.ERROR)
LINGER_S = 1.0
# After a process was suspended its timers come before what arrived meanwhile: that is read first.
LAST_LOOK_S = 0.1
PROBE_S = 1.0  # how long a connection in excess may take to send the head of a probe
PROBES = {b"healthz", b"readyz"}
STATUS_LINES = {
    "invalid_request": b"HTTP/1.1 400 Bad Request\r\n",
    "request_timeout": b"HTTP/1.1 408 Request Timeout\r\n",
    "head_too_large": b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
    "unavailable": b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n",
}


class ConnectionLimits(msgspec.Struct, frozen=True):
    """What one connection may send, and how long it may take.

    ``head_s`` runs from the first byte of a request to the end of its head, ``body_s`` from there
    to its last byte. ``unread_s``: a client that takes nothing of its answer for so long is cut
    off.
    """

    head_bytes: int = 32 * 1024
    headers: int = 100
    head_s: float = 10.0
    body_s: float = 30.0
    unread_s: float = 60.0


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        limits: ConnectionLimits,
        connections: Shares,
        probes: Shares,
        **given: Any,  # noqa: ANN401 - passed on
    ) -> None:
        """Count it in ``connections``, and when they are full in ``probes``.

        Those that ``probes`` counts may ask for the probes only: a crowded instance is not dead.
        """
        super().__init__(**given)
        self.logger = _ERRORS
        self._limits = limits
        self._connections = connections
        self._probes = probes
        self._counted_by: Shares | None = None
        self._head_s = limits.head_s
        self._unfinished = 0  # bytes since something came to its end
        self._head_bytes = 0
        # When the head or the body began that is still coming.
        self._began: float | None = None
        self._in_head = False
        self._is_over = False  # its time, as the last look found
        self._refused = ""
        self._ended = False  # what still comes is not read
        self._running: RequestResponseCycle | None = None  # what is being answered
        self._hung_up: select.poll | None = None  # asks the system
        self._when_gone: Callable[[], object] | None = None  # what its client's end ends
        self._timer: asyncio.TimerHandle | None = None

    # -- the connection ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self._counted_by = self._place()
        if self._counted_by is None:
            transport.write(self._problem("unavailable"))
            transport.close()  # at once: it must not hold a descriptor any longer
            return
        connection = transport.get_extra_info("socket")
        if hasattr(socket, "TCP_USER_TIMEOUT") and connection is not None:
            limit_ms = int(self._limits.unread_s * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
        if connection is not None and hasattr(select, "POLLRDHUP"):
            self._hung_up = select.poll()
            self._hung_up.register(connection.fileno(), select.POLLRDHUP)
        if self._counted_by is self._probes:
            self._head_s = min(PROBE_S, self._head_s)
        self._look_in(self._head_s)

    def _place(self) -> Shares | None:
        """What counts this connection; None where there is no place for it."""
        client = self._client_or_none()
        if self._connections.take(client):
            return self._connections
        if self._connections.full and self._probes.take(client):
            return self._probes
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        if self._timer is not None:
            self._timer.cancel()
        if self._counted_by is not None:
            self._counted_by.give_back(self._client_or_none())
            self._counted_by = None
        if self._running is not None:  # uvicorn tells the last request only
            self._hang_up(self._running)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser at most as much at a time as may stay unfinished."""
        most = self._limits.head_bytes
        for start in range(0, len(data), most):
            if self._ended or self.transport.is_closing():
                return
            piece = data[start : start + most] if len(data) > most else data
            self._unfinished += len(piece)
            super().data_received(piece)
            if self._unfinished > most:
                self._refuse("head_too_large")
        if self._began is not None and self._timer is None and not self._ended:
            self._look_in(self._head_s)

    def is_gone(self) -> bool:
        """Whether the client has closed the connection, even if the loop has not heard of it yet.

        A loop that is busy learns of it late; the system knows at once.
        """
        if self.transport.is_closing() or (self._running and self._running.disconnected):
            return True
        return self._hung_up is not None and bool(self._hung_up.poll(0))

    def when_gone(self, act: Callable[[], object] | None) -> None:
        """Call ``act`` when the client of the request that is being answered goes; None: do not."""
        self._when_gone = act

    def _hang_up(self, cycle: RequestResponseCycle) -> None:
        """Tell the application that the client of a request has gone."""
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle is self._running and self._when_gone is not None:
            self._when_gone()

    # -- what the parser finds --------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {CLIENT: self}  # type: ignore[dict-item]
        self._began = self.loop.time()
        self._in_head = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.head_bytes or len(self.headers) >= self._limits.headers:
            self._too_large()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._in_head = False
        self._began = self.loop.time()
        self._unfinished = 0
        self._head_bytes += len(self.url)
        if self._head_bytes > self._limits.head_bytes:
            self._too_large()
        only_probes = self._counted_by is self._probes
        if only_probes and self.url.partition(b"?")[0].rpartition(b"/")[2] not in PROBES:
            self._refused = "unavailable"
            raise httptools.HttpParserError("no place")  # as in _too_large
        super().on_headers_complete()
        if only_probes:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived whole."""
        self._unfinished = 0
        self._began = None
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - uvicorn's
        self._running = cycle
        super()._start_asgi_task(cycle, WholeAnswer(cycle, app))

    def _too_large(self) -> None:
        self._refused = "head_too_large"
        raise httptools.HttpParserError("the head is too large")  # ends in send_400_response

    # -- refusing ---------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """What uvicorn calls when the parser has failed."""
        self._refuse(self._refused or "invalid_request")

    def _refuse(self, code: str) -> None:
        """End the connection, with a problem unless an answer has begun.

        Requests that came whole before are answered first, and nothing after them: an answer in
        between would be taken for theirs.
        """
        if self._ended or self.transport.is_closing():
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if (last := self._last_before()) is not None:
            last.keep_alive = False
            self.flow.resume_reading()  # to drop what comes
            return
        cycle = self._cycle_or_none()
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(self._problem(code))
        if cycle is not None:
            self._hang_up(cycle)  # it sends nothing after this
        self._close_soon()

    def _last_before(self) -> RequestResponseCycle | None:
        """The last request without an answer before the one that is refused."""
        arriving = self.cycle if self._began is not None and not self._in_head else None
        running = self._running
        if running is None or running is arriving or running.response_complete:
            return None
        waiting = [each for each in self.pipeline if each[0] is not arriving]
        self.pipeline = deque(waiting)  # the newest one first
        return waiting[0][0] if waiting else running

    def _close_soon(self) -> None:
        """Close in a moment, in which what comes is read and dropped.

        A socket that is closed with bytes unread is reset, and the client would not see the answer.
        """
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._counted_by is self._probes:
            self.transport.close()  # others wait for the place
            return
        self._timer = self.loop.call_later(LINGER_S, self.transport.close)

    def _problem(self, code: str) -> bytes:
        """A whole answer, after which the connection ends."""
        body = msgspec.json.encode(problem_of(code, DETAILS[code]))
        head = STATUS_LINES[code]
        head += b"".join(b"%b: %b\r\n" % each for each in self.server_state.default_headers)
        head += b"content-type: %b\r\n" % PROBLEM_TYPE.encode()
        head += b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        return head + body

    def _client_or_none(self) -> str | None:
        return client_at(self.client[0]) if self.client else None

    def _cycle_or_none(self) -> RequestResponseCycle | None:
        """The last request; uvicorn's annotation hides that there may be none yet."""
        return self.cycle

    def _look_in(self, delay_s: float) -> None:
        self._timer = self.loop.call_later(delay_s, self._look)

    def _end_silent(self) -> None:
        if self._counted_by is self._probes:
            self._refuse("unavailable")
        else:
            self.transport.close()

    def _look(self) -> None:
        """Refuse a request that takes too long, and close a connection that never sent one."""
        self._timer = None
        left_s = self._left_s()
        if self.transport.is_closing() or left_s is None:
            return
        if self.flow.read_paused:  # it is the server that does not read
            self._look_in(self._head_s)
        elif left_s > 0:
            self._is_over = False
            self._look_in(left_s)
        elif not self._is_over:
            self._is_over = True
            self._look_in(LAST_LOOK_S)
        elif self._began is None:
            self._end_silent()
        else:
            self._refuse("request_timeout")

    def _left_s(self) -> float | None:
        """Until a request has to be whole; None between two, whose time uvicorn itself bounds."""
        if self._began is None:
            return None if self._cycle_or_none() is not None else 0.0
        limit_s = self._head_s if self._in_head else self._limits.body_s
        return self._began + limit_s - self.loop.time()


DETAILS = {
    "invalid_request": "the request is not valid HTTP",
    "request_timeout": "the request did not arrive whole in time",
    "head_too_large": "the head has more bytes or headers than are accepted",
    "unavailable": "too many connections are open, in all or from this address",
}
