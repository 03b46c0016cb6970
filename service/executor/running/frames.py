"""What every process of handlers and the executor share: frames, and how checkpoints are stored.

A frame is JSON after four bytes of length.
"""

import struct
from collections.abc import Callable

import msgspec
from msgspec import Raw

from holdfast_worker.task import Keep
from holdfast_worker.tokens import Usage
from service.executor.attempts.endings import Failure, failure_of
from streams.json_values import NotJson

LENGTH = struct.Struct("!I")


class KnownSecrets(msgspec.Struct, frozen=True, tag=True):
    """Either way: secrets that no line may hold."""

    values: tuple[str, ...]


class Kept(msgspec.Struct, frozen=True, tag=True):
    """To the handler's process: a checkpoint is in the log, unless there was a ``failure``."""

    number: int
    failure: Failure | None = None


class FrameTooLarge(Exception):
    """A message is longer than the other side would take; nothing was sent."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"{size} bytes; at most {most} go to or from a handler's process")


class Garbled(OSError):
    """The other side sent what cannot be read: the wire is of no use any more."""


def framed(payload: bytes, frame_bytes: int) -> bytes:
    """One message with its length. Raises `FrameTooLarge`."""
    if len(payload) > frame_bytes:
        raise FrameTooLarge(len(payload), frame_bytes)
    return LENGTH.pack(len(payload)) + payload


def not_sent(error: FrameTooLarge) -> Failure:
    """How an attempt ends whose work no process takes."""
    message = f"the task's input, context and dependencies come to {error}"
    return Failure(error_type="too_large", error_message=message, retryable=False)


def store(
    keep: Keep,
    key: str,
    value: Raw,
    usage: Usage | None,
    settle: Callable[[Failure | None], object],
) -> None:
    """Store a checkpoint; ``settle`` is called, on any thread, once it stands or has failed."""

    def end(error: BaseException | None) -> None:
        settle(None if error is None else failure_of(error))

    try:
        stored = keep(key, value, usage)
    except NotJson as error:
        end(error)
    else:
        stored.add_done_callback(lambda future: end(future.exception()))
