"""An event-stream client that is cheap enough to run a thousand times, and believes nothing.

It speaks HTTP and server-sent events on its own, with no code of the service: head, chunks, blocks.
Whatever breaks the contract (an id that goes back, a repetition, a block that is none) is kept as
a fault and raised by `Story.check`. Only complete blocks count, as for a browser.
"""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import msgspec

LARGEST_HEAD = 16 * 1024
ANSWER_S = 20.0  # for the head of an answer; a machine may be busy

Manner = Literal["close", "reset", "half-close"]


class StreamFault(AssertionError):
    """The service broke the contract of the event stream."""


class Signal(msgspec.Struct, frozen=True):
    """A block about the stream, and how many events had come before it."""

    name: str
    id: int | None
    data: dict[str, Any]
    events_before: int


class Story:
    """What one client has been told, over all of its connections."""

    def __init__(self, cursor: int | None = None) -> None:
        self.cursor = cursor
        self.sequences: list[int] = []
        self.names: list[str] = []
        self.signals: list[Signal] = []
        self.faults: list[str] = []
        self.on_event: Callable[[int, bytes], None] | None = None
        """Called with each event's sequence and its data line."""

    def skip_run(self, blocks: list[bytes]) -> list[bytes]:
        """What is left of ``blocks`` for `take`; a `Run` needs few of them."""
        return blocks

    def take(self, block: bytes) -> str:
        """Take in one block; answers its name, empty for one that is no event."""
        id_: int | None = None
        name = data = b""
        for line in block.split(b"\n"):
            if line.startswith(b"data: "):
                data = line
            elif line.startswith(b"event: "):
                name = line[7:]
            elif line.startswith(b"id: "):
                id_ = int(line[4:])
            elif not line.startswith((b":", b"retry: ")):
                raise StreamFault(f"a line that is none of ours: {line[:80]!r}")
        if b"." in name:
            self._event(id_, name, data)
        else:
            self._signal(id_, name, data)
        return _text(name)

    def _event(self, id_: int | None, name: bytes, data: bytes) -> None:
        if id_ is None or not data.startswith(b'data: {"sequence":%d,' % id_):
            raise StreamFault(f"id {id_} on {data[:60]!r}")
        if self.cursor is not None and id_ <= self.cursor:
            raise StreamFault(f"event {id_} came after {self.cursor}")
        self.cursor = id_
        self.sequences.append(id_)
        self.names.append(_text(name))
        if self.on_event is not None:
            self.on_event(id_, data)

    def _signal(self, id_: int | None, name: bytes, data: bytes) -> None:
        if id_ is not None:
            if self.cursor is not None and id_ < self.cursor and name != b"gap":
                raise StreamFault(f"the id of {name!r} went back from {self.cursor} to {id_}")
            self.cursor = id_
        content = json.loads(data[6:])
        self.signals.append(Signal(_text(name), id_, content, len(self.sequences)))

    def check(self) -> None:
        """Raise the first fault that was found."""
        if self.faults:
            raise StreamFault(self.faults[0])

    def told(self, name: str) -> list[Signal]:
        """The signals of this name."""
        return [signal for signal in self.signals if signal.name == name]


class Run(Story):
    """A story of a whole log after a cursor: each event has to follow directly on the last.

    It keeps no sequences, ``cursor`` is enough; so a thousand clients may get millions.
    """

    def skip_run(self, blocks: list[bytes]) -> list[bytes]:
        """See `Story.skip_run`."""
        cursor = self.cursor
        if cursor is None:
            return blocks
        for place, block in enumerate(blocks):
            if not block.startswith(b"id: %d\nevent: task.progress\n" % (cursor + 1)):
                self.cursor = cursor
                return blocks[place:]
            cursor += 1
        self.cursor = cursor
        return []

    def _event(self, id_: int | None, name: bytes, data: bytes) -> None:
        if self.cursor is not None and id_ != self.cursor + 1:
            raise StreamFault(f"event {id_} came after {self.cursor}")
        super()._event(id_, name, data)


class Connection(asyncio.Protocol):
    """One answer to one question; ends when the server or `hang_up` ends it."""

    def __init__(self, story: Story, request: bytes) -> None:
        self.story = story
        self.status = 0
        self.head = b""
        self.body = b""  # of an answer that is no stream
        self.retry_ms: int | None = None
        self.greeting: Signal | None = None
        self.caught_up_at: int | None = None  # how many events the story had by then
        self.last_signal = ""
        self.begun = asyncio.Event()
        self.caught_up = asyncio.Event()
        self.ended = asyncio.Event()
        self.events_left: int | None = None
        """Hang up after so many events, by ``manner``."""
        self.manner: Manner = "close"
        self._request = request
        self._raw = self._text = b""
        self._over = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.begun.set()
        self.ended.set()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        try:
            self._take(data)
        except (StreamFault, ValueError, KeyError) as fault:
            self.story.faults.append(f"{fault!r} after {self.story.sequences[-3:]}")
            self.hang_up("reset")

    def hang_up(self, manner: Manner | None = None) -> None:
        """Close. After a half-close the server may go on to speak, and is heard."""
        manner = manner or self.manner
        if self.transport.is_closing():
            return
        if manner == "half-close":
            self.transport.write_eof()
            return
        self._over = True
        if manner == "reset":
            reset(self.transport.get_extra_info("socket"))
            self.transport.abort()
        else:
            self.transport.close()

    async def told_or_ended(self, told: asyncio.Event, within_s: float) -> bool:
        """Whether ``told`` came before the end; raises StreamFault when neither does in time."""
        waits = [asyncio.ensure_future(each.wait()) for each in (told, self.ended)]
        done, _ = await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not done:
            raise StreamFault(f"nothing for {within_s:g} s after {self.story.sequences[-3:]}")
        return told.is_set()

    def _take(self, data: bytes) -> None:
        if not self.begun.is_set():
            data = self._take_head(data)
        if self.status != 200:
            self.body += data
            return
        text = self._text + self._dechunk(data)
        if text.startswith(b"retry: ") and b"\n" in text and self.retry_ms is None:
            self.retry_ms = int(text[7 : text.index(b"\n")])
        *blocks, self._text = text.split(b"\n\n")
        for block in self.story.skip_run(blocks):
            name = self.story.take(block)
            if "." in name:
                if self.events_left is not None:
                    self.events_left -= 1
                    if not self.events_left:
                        self.hang_up()
                        if self._over:
                            return
            elif name:
                self._hear(name)

    def _hear(self, name: str) -> None:
        self.last_signal = name
        signal = self.story.signals[-1]
        if name == "hello":
            self.greeting = signal
        if self.greeting is None:
            raise StreamFault(f"{name} came before hello")
        if name == "caught_up":
            if self.caught_up_at is not None:
                raise StreamFault("caught_up was said twice")
            if signal.data["sequence"] < self.greeting.data["head"]:
                raise StreamFault(f"{signal} after {self.greeting}")
            self.caught_up_at = signal.events_before
            self.caught_up.set()

    def _take_head(self, data: bytes) -> bytes:
        head, blank, rest = (self.head + data).partition(b"\r\n\r\n")
        self.head = head
        if not blank:
            if len(head) > LARGEST_HEAD:
                raise StreamFault("a head without an end")
            return b""
        self.status = int(head.split(b" ", 2)[1])
        if self.status == 200 and b"transfer-encoding: chunked" not in head.lower():
            raise StreamFault("a stream that is not chunked")
        self.begun.set()
        return rest

    def _dechunk(self, data: bytes) -> bytes:
        raw = self._raw + data
        start = 0
        parts: list[bytes] = []
        while (end := raw.find(b"\r\n", start)) >= 0:
            size = int(raw[start:end], 16)
            stop = end + 2 + size
            if stop + 2 > len(raw):
                break
            if raw[stop : stop + 2] != b"\r\n":
                raise StreamFault(f"a chunk without an end: {raw[stop : stop + 20]!r}")
            parts.append(raw[end + 2 : stop])
            start = stop + 2
        self._raw = raw[start:]
        return b"".join(parts)


async def ask(
    url: str, path: str, story: Story, *, cursor: int | None = None, header: bool = True
) -> Connection:
    """Ask for a stream after ``cursor``, by header or by query; does not wait. Raises OSError."""
    host, port = url.removeprefix("http://").split(":")
    said = ""
    if cursor is not None and header:
        said = f"Last-Event-ID: {cursor}\r\n"
    elif cursor is not None:
        path += f"{'&' if '?' in path else '?'}after={cursor}"
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{said}\r\n".encode()
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(story, request), host, int(port)
    )
    return connection


async def begun(connection: Connection) -> int:
    """The status of the answer; 0 when the connection was lost before."""
    async with asyncio.timeout(ANSWER_S):
        await connection.begun.wait()
    return connection.status


def reset(connection: socket.socket) -> None:
    """Let the close of this socket be a reset, not a goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Ages:
    """How old events are when they arrive, in seconds by their log time; one for many clients."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._written: dict[int, float] = {}

    def note(self, sequence: int, data: bytes) -> None:
        """For `Story.on_event`."""
        now = time.time()
        written = self._written.get(sequence)
        if written is None:
            at = msgspec.json.decode(data[6:], type=_Dated).at
            written = self._written[sequence] = at.timestamp()
        self.values.append(now - written)

    def percentile(self, percent: int) -> float:
        """Seconds."""
        return sorted(self.values)[len(self.values) * percent // 100]


class _Dated(msgspec.Struct):
    at: datetime


_TEXTS: dict[bytes, str] = {}


def _text(name: bytes) -> str:
    """The few names there are, decoded once."""
    text = _TEXTS.get(name)
    if text is None:
        text = _TEXTS[name] = name.decode()
    return text
