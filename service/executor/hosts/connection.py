"""The connection to a worker host process: messages in frames, and whether the host answers."""

import asyncio
from collections.abc import Callable, Iterable
from typing import cast

import msgspec

from service.executor.hosts.silence import HostSilence
from service.executor.limits import ExecutorLimits
from service.executor.running.frames import FrameReader, Garbled, frame_of
from service.executor.running.messages import FromHost, HostPing


class HostConnection(asyncio.Protocol):
    """Messages sent before there is a process wait for it. Belongs to the running loop.

    ``heard`` gets the messages that came together; ``said_nothing`` is called when none came for
    too long, ``unreadable`` after one that cannot be read, which is then ``garbled``.
    """

    def __init__(
        self,
        limits: ExecutorLimits,
        heard: Callable[[Iterable[FromHost]], None],
        said_nothing: Callable[[], None],
        unreadable: Callable[[], None],
    ) -> None:
        self.lost = asyncio.Event()
        self.garbled: Garbled | None = None
        self._heard = heard
        self._unreadable = unreadable
        self._loop = asyncio.get_running_loop()
        self._frame_bytes = limits.frame_bytes
        self._reader = FrameReader(FromHost, limits.frame_bytes)
        self._outgoing: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._silence = HostSilence(limits, lambda: self.send(HostPing()), said_nothing)

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come for too long."""
        return self._silence.lasts

    def send(self, message: msgspec.Struct) -> None:
        """Send with all that is sent in this turn of the loop. Raises `FrameTooLarge`."""
        self._outgoing.append(frame_of(message, self._frame_bytes))
        if len(self._outgoing) == 1 and self._transport is not None:
            self._loop.call_soon(self._flush)

    def abort(self) -> None:
        """Close it at once, if there is one."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process may read what was sent before."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._flush()
        self._silence.begin()

    def data_received(self, data: bytes) -> None:
        """What the host says."""
        self._silence.heard()
        try:
            messages = self._reader.feed(data)
        except Garbled as error:
            self.garbled = error
            self._unreadable()
            messages = []
        self._heard(messages)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The process has ended, or will."""
        self._silence.end()
        self._transport = None
        self.lost.set()

    def _flush(self) -> None:
        if self._transport is not None and self._outgoing:
            self._transport.write(b"".join(self._outgoing))
            self._outgoing.clear()
