"""What the executor and a worker host process send each other, and how it is framed.

Frames are JSON after four bytes of length. JSON, because inputs, outputs and progress are JSON
already and cross as they are. All frames that are ready go in one write, and are read together.
"""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from holdfast_worker.cancellation import StopReason
from holdfast_worker.progress import Piece
from holdfast_worker.task import Assignment
from holdfast_worker.tokens import Usage
from service.executor.attempts.endings import Ending
from service.executor.running.frames import LENGTH, Garbled, Kept, KnownSecrets, framed
from service.settings.config import ExecutorSettings, LogSettings, SecretSettings, Settings
from service.signals import logs
from service.signals.tracing.spans import Span
from streams.json_values import UNREADABLE
from streams.plan.events import NOTHING

STACK_BYTES = 8 * 1024 * 1024  # of a thread; the kernel counts them as data


class HostSetup(msgspec.Struct, frozen=True, tag=True):
    """To the host, first: how to log, which handlers to load, and how much memory it may have.

    ``secrets`` say where values come from; ``data_bytes`` 0 is no bound of memory.
    """

    instance_id: str
    log: LogSettings
    executor: ExecutorSettings
    secrets: dict[str, SecretSettings]
    data_bytes: int = 0
    spans: bool = False


class HostWork(msgspec.Struct, frozen=True, tag=True):
    """To the host: call the handler of the work's kind; ``run`` names the call from now on."""

    run: int
    work: Assignment


class HostStop(msgspec.Struct, frozen=True, tag=True):
    """To the host: the attempt of a call is to stop."""

    run: int
    reason: StopReason


class HostPing(msgspec.Struct, frozen=True, tag=True):
    """Either way: a question whether the host still reads, and its answer."""


class HostReady(msgspec.Struct, frozen=True, tag=True):
    """From the host: it takes tasks of ``kinds``; ``unusable`` says why it has no other kinds."""

    kinds: tuple[str, ...]
    unusable: str = ""


class HostProgress(msgspec.Struct, frozen=True, tag=True):
    """From the host: progress of a call, either a ``piece`` of a text or other ``data``."""

    run: int
    data: Raw = NOTHING
    piece: Piece | None = None


class HostCheckpoint(msgspec.Struct, frozen=True, tag=True):
    """From the host: keep ``value`` under ``key``, and answer `Kept` with the same number."""

    run: int
    number: int
    key: str
    value: Raw
    usage: Usage | None


class HostEnded(msgspec.Struct, frozen=True, tag=True):
    """From the host: how a call ended, and when its first instruction was (monotonic)."""

    run: int
    began_at: float
    ending: Ending


class HostSpan(msgspec.Struct, frozen=True, tag=True):
    """From the host: a span of a handler's call to the outside has ended."""

    span: Span


class HostLeaving(msgspec.Struct, frozen=True, tag=True):
    """From the host: it was asked to end, and takes no more work."""


ToHost = HostSetup | HostWork | HostStop | HostPing | Kept | KnownSecrets
FromHost = (
    HostReady
    | HostProgress
    | HostCheckpoint
    | HostEnded
    | HostSpan
    | HostLeaving
    | HostPing
    | KnownSecrets
)


def setup_of(settings: Settings, instance_id: str, *, spans: bool) -> HostSetup:
    """What a host of this process is to know; its log is set up as this one's is now."""
    worker = settings.executor.worker
    stacks = worker.core_size * STACK_BYTES
    return HostSetup(
        instance_id=instance_id,
        log=logs.in_force(),
        executor=settings.executor,
        secrets=settings.secrets,
        data_bytes=worker.memory_mb * 1024 * 1024 + stacks if worker.memory_mb else 0,
        spans=spans,
    )


def frame_of(message: msgspec.Struct, frame_bytes: int) -> bytes:
    """One message as a frame. Raises `FrameTooLarge`."""
    return framed(_encoder.encode(message), frame_bytes)


class FrameReader:
    """Takes bytes as they come and gives the messages that are complete."""

    def __init__(self, expected: Any, frame_bytes: int) -> None:  # noqa: ANN401 - a type
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(expected, dec_hook=_path)
        self._frame_bytes = frame_bytes
        self._received = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that ``data`` completes. Raises `Garbled`."""
        self._received += data
        messages: list[Any] = []
        at = 0
        with memoryview(self._received) as received:
            while (end := self._end_of_frame(received, at)) is not None:
                messages.append(self._decoded(bytes(received[at + LENGTH.size : end])))
                at = end
        del self._received[:at]
        return messages

    def _end_of_frame(self, received: memoryview, at: int) -> int | None:
        if len(received) - at < LENGTH.size:
            return None
        (size,) = LENGTH.unpack_from(received, at)
        if size > self._frame_bytes:
            raise Garbled(f"a frame of {size} bytes")
        end = at + LENGTH.size + size
        return end if end <= len(received) else None

    def _decoded(self, payload: bytes) -> Any:  # noqa: ANN401
        try:
            return self._decoder.decode(payload)
        except UNREADABLE as error:
            raise Garbled(str(error)) from None


def _path(declared: type, value: object) -> object:
    return Path(str(value)) if declared is Path else value


_encoder = msgspec.json.Encoder(enc_hook=str)
