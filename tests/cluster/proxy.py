"""The process that carries every TCP link of the cluster, and cuts, delays or lags each by name.

    python proxy.py NAME=TARGET_PORT ...

It listens on a free loopback port per link and prints them as one JSON object. Then each line of
its input is one JSON order, answered by one line:

    {"mode": {"r12": "open" | "cut" | "refuse"}}  cut: bytes stay where they are, both ways, and new
                                    connections hang; refuse: connections are reset, old and new
    {"delay": {"c11": 0.2}}         every byte arrives so many seconds later
    {"lag": {"r12": ["target", 3]}} replication messages towards that end arrive so much later, and
                                    all others at once: a replica that lags and is otherwise well
    {"status": true}                the answer says how many connections each link carries

The process ends with its input.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, Literal

HOST = "127.0.0.1"
BUFFER = 4 * 1024 * 1024  # unsent bytes of one direction, after which its source is not read
REPLICATION = b"$NRG.AE."  # the subjects on which a leader sends entries to its followers
MESSAGES = (b"RMSG ", b"HMSG ", b"LMSG ")

End = Literal["dialler", "target"]
Mode = Literal["open", "cut", "refuse"]


class Link:
    """One listening port and where it leads."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.mode: Mode = "open"
        self.delay_s = 0.0
        self.lag: tuple[End, float] | None = None
        self.connections: set[Connection] = set()

    def set_mode(self, mode: Mode) -> None:
        self.mode = mode
        for connection in list(self.connections):
            if mode == "refuse":
                connection.abort()
            elif mode == "open":
                connection.go_on()
            else:
                connection.hold()

    def accept(self) -> asyncio.Protocol:
        return Connection(self).dialler


class Connection:
    """The two sockets of one connection through a link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.dialler = Socket(self, "dialler")
        self.target = Socket(self, "target")
        self._dialled = False
        self._ended = False

    def begin(self) -> None:
        """The dialler is here; the way on is opened unless the link is cut."""
        self.link.connections.add(self)
        if self.link.mode == "refuse":
            self.abort()
        elif self.link.mode == "open":
            self._dial()
        else:
            self.dialler.pause()

    def _dial(self) -> None:
        self._dialled = True
        self.dialler.pause()
        self._dialling = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.target, HOST, self.link.target)
        except OSError:
            self.abort()
            return
        if self.link.mode == "open":
            self.go_on()
        else:
            self.hold()

    def other(self, socket: "Socket") -> "Socket":
        return self.target if socket is self.dialler else self.dialler

    def hold(self) -> None:
        self.dialler.pause()
        self.target.pause()

    def go_on(self) -> None:
        if self._ended:  # one end closed while the link was cut: now the other learns of it
            self.abort()
        elif not self._dialled:
            self._dial()
        elif self.target.transport is not None:
            self.dialler.resume()
            self.target.resume()

    def closed(self) -> None:
        self._ended = True
        if self.link.mode != "cut":
            self.abort()

    def abort(self) -> None:
        self._ended = True
        self.link.connections.discard(self)
        for socket in (self.dialler, self.target):
            if socket.transport is not None:
                socket.transport.abort()


class Socket(asyncio.Protocol):
    """One end; what it receives goes to the other end, at once or late."""

    def __init__(self, connection: Connection, name: End) -> None:
        self.name = name
        self.transport: asyncio.Transport | None = None
        self._connection = connection
        self.full = False  # the other end does not take what we receive
        self._due = {False: 0.0, True: 0.0}  # when the newest late bytes go on, messages by lag
        self._unparsed = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(BUFFER)
        if self.name == "dialler":
            self._connection.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.transport = None
        self._connection.closed()

    def pause_writing(self) -> None:
        other = self._connection.other(self)
        other.full = True
        other.pause()

    def resume_writing(self) -> None:
        other = self._connection.other(self)
        other.full = False
        if self._connection.link.mode == "open":
            other.resume()

    def pause(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.transport is not None and not self.transport.is_closing() and not self.full:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        link = self._connection.link
        if link.lag is None:
            if self._unparsed:
                data, self._unparsed = self._unparsed + data, b""
            self._send(data, link.delay_s, lagging=False)
        else:
            self._split(data, *link.lag)

    def _split(self, data: bytes, towards: End, lag_s: float) -> None:
        """Separate replication messages from all others; the link carries NATS's route protocol."""
        if towards == self.name:  # they flow towards the end that sends these bytes
            self._send(data, self._connection.link.delay_s, lagging=False)
            return
        soon, late, self._unparsed = split(self._unparsed + data)
        self._send(soon, self._connection.link.delay_s, lagging=False)
        self._send(late, lag_s, lagging=True)

    def _send(self, data: bytes, delay_s: float, *, lagging: bool) -> None:
        """After ``delay_s``, but never before what was received earlier."""
        if not data:
            return
        loop = asyncio.get_running_loop()
        due = max(loop.time() + delay_s, self._due[lagging])
        if due <= loop.time():
            self._write(data)
        else:
            self._due[lagging] = due
            loop.call_at(due, self._write, data)

    def _write(self, data: bytes) -> None:
        transport = self._connection.other(self).transport
        if transport is not None and not transport.is_closing():
            transport.write(data)


def split(stream: bytes) -> tuple[bytes, bytes, bytes]:
    """The frames of a route: all but replication, replication, and what is not complete yet."""
    soon: list[bytes] = []
    late: list[bytes] = []
    start = 0
    while (end := stream.find(b"\r\n", start)) >= 0:
        line = stream[start:end]
        stop = end + 2
        is_message = line[:5] in MESSAGES
        if is_message:
            stop += int(line.rsplit(b" ", 1)[1]) + 2
            if stop > len(stream):
                break
        (late if is_message and REPLICATION in line else soon).append(stream[start:stop])
        start = stop
    return b"".join(soon), b"".join(late), stream[start:]


def obey(links: dict[str, Link], order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order; answers what was asked."""
    for name, mode in order.get("mode", {}).items():
        links[name].set_mode(mode)
    for name, delay_s in order.get("delay", {}).items():
        links[name].delay_s = delay_s
    for name, lag in order.get("lag", {}).items():
        links[name].lag = None if lag is None else (lag[0], lag[1])
    return {name: len(link.connections) for name, link in links.items()}


async def main(wanted: list[str]) -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    links: dict[str, Link] = {}
    ports: dict[str, int] = {}
    for each in wanted:
        name, target = each.split("=")
        links[name] = Link(int(target))
        accept: Callable[[], asyncio.Protocol] = links[name].accept
        server = await loop.create_server(accept, HOST, 0)
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)  # noqa: T201 - its answer
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        print(json.dumps(obey(links, json.loads(line))), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
