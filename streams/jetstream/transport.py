"""What group commit asks of the log, and what the log may answer; nothing here speaks NATS."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec


class Message(msgspec.Struct, frozen=True, gc=False):
    """One fact as it is sent: ``expected`` None when it directly follows another in its batch."""

    subject: str
    expected: int | None
    lines: bytes
    payload: bytes


class Stored(msgspec.Struct, frozen=True, gc=False):
    """All messages are on disk, the last one at ``sequence``, the others directly before it."""

    sequence: int


class WriteRefused(msgspec.Struct, frozen=True, gc=False):
    """The log answered no: nothing of this was written by this attempt."""

    code: int
    reason: str


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """Not known: it may be on disk, or may get there later."""

    reason: str


WriteAnswer = Stored | WriteRefused | Unknown


class Found(msgspec.Struct, frozen=True, gc=False):
    """A stored message's sequence and event id."""

    sequence: int
    event_id: str


class Transport(Protocol):
    """What group commit needs of a log."""

    @property
    def connected(self) -> bool:
        """Whether the log can be asked now."""
        ...

    @property
    def down_s(self) -> float:
        """For how many seconds it could not be asked; 0 while it can."""
        ...

    @property
    def max_payload(self) -> int:
        """The largest message with its headers, in bytes."""
        ...

    async def until_connected(self, timeout_s: float) -> bool:
        """Wait until it can be asked; False when ``timeout_s`` went by first."""
        ...

    def publish(
        self, messages: Sequence[Message], timeout_s: float
    ) -> "asyncio.Future[WriteAnswer]":
        """Send one message, or several as one atomic batch."""
        ...

    async def first_after(self, subject: str, sequence: int, timeout_s: float) -> Found | None:
        """The first message on ``subject`` above ``sequence``, from the leader; LogUnavailable."""
        ...

    async def last_of(self, subjects: Sequence[str]) -> Mapping[str, int]:
        """The last sequence of each subject that has one, perhaps stale; LogUnavailable."""
        ...
