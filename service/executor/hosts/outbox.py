"""What a worker host sends to its executor: many threads send, and one of them writes for all."""

import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from time import sleep

import msgspec

from holdfast_worker.progress import Piece, Shown
from service.executor.running.frames import frame_of
from service.executor.running.messages import HostProgress, KnownSecrets
from service.runtime.masking import KNOWN

PROGRESS_S = 0.05  # how long progress is gathered; the executor writes it still less often
GATHERED_CHARACTERS = 64 * 1024


class Outbox:
    """Frames on their way; those that gather while one thread writes go in its next write."""

    def __init__(self, connection: socket.socket, frame_bytes: int) -> None:
        self._connection = connection
        self._frame_bytes = frame_bytes
        self._lock = Lock()
        self._waiting: list[bytes] = []
        self._writing = False
        self._told = KNOWN.values

    def send(self, *messages: msgspec.Struct) -> None:
        """Send ``messages``, in order. Raises `FrameTooLarge`, and then sends none of them."""
        if (known := KNOWN.values) is not self._told:  # the executor masks what it writes, too
            self._told = known
            messages = (KnownSecrets(tuple(known)), *messages)
        frames = [frame_of(message, self._frame_bytes) for message in messages]
        with self._lock:
            self._waiting += frames
            if self._writing:
                return
            self._writing = True
        self._write()

    @contextmanager
    def together(self) -> Generator[None]:
        """What any thread sends during the block goes in one write after it; a short block."""
        with self._lock:
            writes, self._writing = not self._writing, True
        try:
            yield
        finally:
            if writes:
                self._write()

    def _write(self) -> None:
        while True:
            with self._lock:
                frames, self._waiting = self._waiting, []
                if not frames:
                    self._writing = False
                    return
            with suppress(OSError):  # the executor is gone, and this process ends for that
                self._connection.sendall(b"".join(frames))


class GatheredProgress:
    """Progress of all calls, sent a few times a second, so that no handler floods the executor."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._lock = Lock()
        self._pending: dict[int, list[Shown]] = {}
        self._characters = 0
        self._news = Event()
        Thread(target=self._send_forever, name="progress", daemon=True).start()

    def show(self, run: int, shown: Shown) -> None:
        """Add progress of a call: texts are continued, of other progress the newest is kept."""
        with self._lock:
            pending = self._pending.setdefault(run, [])
            _gather(pending, shown)
            self._characters += len(shown.text) if isinstance(shown, Piece) else 0
            if self._characters > GATHERED_CHARACTERS:
                self._send_all()
                return
        self._news.set()

    def send(self, run: int) -> None:
        """Send what a call has shown; its end follows."""
        with self._lock:
            self._send(run, self._pending.pop(run, []))

    def _send_forever(self) -> None:
        while self._news.wait():
            sleep(PROGRESS_S)
            self._news.clear()
            with self._lock:
                self._send_all()

    def _send_all(self) -> None:
        pending, self._pending, self._characters = self._pending, {}, 0
        for run, shown in pending.items():
            self._send(run, shown)

    def _send(self, run: int, shown: list[Shown]) -> None:
        self._outbox.send(*(HostProgress.of(run, each) for each in shown))


def _gather(pending: list[Shown], shown: Shown) -> None:
    last = pending[-1] if pending else None
    if isinstance(shown, Piece):
        if isinstance(last, Piece) and last.channel == shown.channel:
            pending[-1] = Piece(last.text + shown.text, shown.channel)
        else:
            pending.append(shown)
        return
    pending[:] = [each for each in pending if isinstance(each, Piece)]
    pending.append(shown)
