"""Frames: how messages cross between the executor and the processes that run handlers.

A frame is JSON after four bytes of length. JSON, because inputs, outputs and progress are JSON
already and cross as they are. All frames that are ready go in one write, and are read together.
"""

import struct
from pathlib import Path
from typing import Any

import msgspec

from streams.json_values import UNREADABLE

LENGTH = struct.Struct("!I")


class FrameTooLarge(Exception):
    """A message is longer than the other side would take; nothing was sent."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"{size} bytes; at most {most} go to or from a handler's process")


class Garbled(OSError):
    """The other side sent what cannot be read: the wire is of no use any more."""


def frame_of(message: msgspec.Struct, frame_bytes: int) -> bytes:
    """One message as a frame. Raises `FrameTooLarge`."""
    payload = _encoder.encode(message)
    if len(payload) > frame_bytes:
        raise FrameTooLarge(len(payload), frame_bytes)
    return LENGTH.pack(len(payload)) + payload


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
