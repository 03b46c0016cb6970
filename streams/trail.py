"""The stream AUDIT: what happened around the log goes in here, and is told to whoever follows.

Nothing here knows what an entry says; it is a subject, an id and a payload. Entries carry no
expectation, so they go as one atomic batch when there are many (one sync for all) and singly
otherwise. An id that is stored already counts as stored: writing again after trouble is safe.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from streams.appender import (
    ENVELOPE_BYTES,
    SINGLES,
    TOO_LARGE,
    Answer,
    Message,
    Refused,
    Stored,
    Transport,
    Unknown,
)
from streams.codec import HEADER_LINE, MESSAGE_ID, split_headers
from streams.connection import Connection
from streams.follower import Follower, StreamPosition
from streams.log import LogUnavailable
from streams.subjects import audit_subject
from streams.topology import (
    AUDIT_STREAM,
    BATCHES,
    Ask,
    audit_stream,
    ensure_stream,
    epoch_of,
    info_of,
)

WRITE_TIMEOUT_S = 5.0
MAX_BATCH = 1_000  # the server's limit

_BEGINNING = b"%b%b: " % (HEADER_LINE, MESSAGE_ID)


class TrailEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One entry to write: its subject's parts, an id that no other entry has, its payload."""

    id: str
    event: str
    plan_id: str | None
    task_id: str | None
    payload: bytes


class TrailMessage(msgspec.Struct, frozen=True, gc=False):
    """One message of the stream: an entry, or whatever somebody has published by hand."""

    sequence: int
    at: float
    subject: str
    id: str
    payload: bytes


class TrailExtent(msgspec.Struct, frozen=True):
    """First and last sequence of the stream, and a name that one made anew does not share."""

    epoch: str
    first: int
    head: int


class Trail:
    """The stream AUDIT."""

    def __init__(
        self, connection: Connection, transport: Transport, ask: Ask, replicas: int
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._ask = ask
        self._replicas = replicas

    async def ensure(self) -> None:
        """Make the stream if it is not there. Raises TopologyMismatch, LogUnavailable."""
        wanted = audit_stream(replicas=self._replicas)
        await ensure_stream(self._ask, wanted, may_turn_on=BATCHES)

    async def extent(self) -> TrailExtent:
        """What the stream holds. Raises LogReset when it is gone, LogUnavailable."""
        info = await info_of(self._ask, AUDIT_STREAM)
        return TrailExtent(epoch_of(AUDIT_STREAM, info), info.state.first_seq, info.state.last_seq)

    async def follow(self, after: int) -> AsyncIterator[list[TrailMessage]]:
        """Every message above ``after``, in order, in batches, for ever. Raises LogReset."""
        follower = Follower(
            self._connection,
            AUDIT_STREAM,
            after,
            decode=_read,
            position_of=self._position,
            on_restart=lambda _: None,
        )
        tail = follower.batches()
        try:
            async for messages in tail:
                yield messages
        finally:
            await tail.aclose()

    async def _position(self) -> StreamPosition:
        extent = await self.extent()
        return StreamPosition(extent.epoch, extent.head)

    async def write(self, entries: Sequence[TrailEntry]) -> list[TrailEntry]:
        """Store up to MAX_BATCH entries; answers those that the stream will never take.

        Raises LogUnavailable when it is not known that all are stored: write the same again.
        """
        # The server answers a message over its limit by closing the connection.
        most = self._transport.max_payload - ENVELOPE_BYTES
        refused = [entry for entry in entries if len(entry.payload) > most]
        fitting = [entry for entry in entries if len(entry.payload) <= most]
        messages = [_message(entry) for entry in fitting]
        if len(messages) > SINGLES and await self._written_together(messages):
            return refused
        answers = await asyncio.gather(
            *(self._transport.publish([message], WRITE_TIMEOUT_S) for message in messages)
        )
        for entry, answer in zip(fitting, answers, strict=True):
            if not _is_stored(answer):
                refused.append(entry)
        return refused

    async def _written_together(self, messages: Sequence[Message]) -> bool:
        match await self._transport.publish(messages, WRITE_TIMEOUT_S):
            case Stored():
                return True
            case Unknown(reason):
                raise LogUnavailable(f"the audit trail does not answer: {reason}")
            case Refused():
                return False  # one of them is stored already, say: each for itself tells


def _is_stored(answer: Answer) -> bool:
    """Whether one entry is stored (True) or never will be. Raises LogUnavailable otherwise."""
    match answer:
        case Stored():
            return True
        case Refused(code) if code == TOO_LARGE:
            return False
        case Refused(_, reason) | Unknown(reason):
            raise LogUnavailable(f"the audit trail does not take entries: {reason}")


def _read(sequence: int, at: float, subject: str, headers: bytes, payload: bytes) -> TrailMessage:
    return TrailMessage(sequence, at, subject, _id(headers).decode("utf-8", "replace"), payload)


def _id(headers: bytes) -> bytes:
    if headers.startswith(_BEGINNING):  # as `_message` writes it
        return headers[len(_BEGINNING) :].partition(b"\r")[0].strip()
    return split_headers(headers).get(MESSAGE_ID, b"")


def _message(entry: TrailEntry) -> Message:
    subject = audit_subject(entry.event, entry.plan_id, entry.task_id)
    lines = b"%b: %b\r\n" % (MESSAGE_ID, entry.id.encode())
    return Message(subject, None, lines, entry.payload)
