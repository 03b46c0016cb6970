"""The stream AUDIT: writes and reads entries about what happened around the log.

Nothing here knows what an entry says; it is a subject, an id and a payload. Entries carry no
expectation, so they go as one atomic batch when there are many (one sync for all) and singly
otherwise. An id that is stored already counts as stored: writing again after trouble is safe.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from streams.codec import MESSAGE_ID, split_headers
from streams.jetstream.bounds import NO_BOUND, Bound
from streams.jetstream.group_commit import ENVELOPE_BYTES, SINGLES
from streams.jetstream.leadership import proven_info
from streams.jetstream.messages import Reply
from streams.jetstream.names import Names
from streams.jetstream.reader import Reader
from streams.jetstream.refusals import TOO_LARGE
from streams.jetstream.replicas import Replicas
from streams.jetstream.topology import (
    BATCHES,
    Ask,
    audit_stream,
    ensure_stream,
    epoch_of,
)
from streams.jetstream.transport import (
    Message,
    Stored,
    Transport,
    Unknown,
    WriteAnswer,
    WriteRefused,
)
from streams.log import LogUnavailable
from streams.subjects import ALL_AUDIT

WRITE_TIMEOUT_S = 5.0


class TrailEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One entry to write: its event and subject, an id that no other entry has, its payload."""

    id: str
    event: str
    subject: str
    payload: bytes


class TrailMessage(msgspec.Struct, frozen=True, gc=False):
    """One message of the stream: an entry, or anything that was published by hand."""

    sequence: int
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
        self,
        reader: Reader,
        transport: Transport,
        ask: Ask,
        wanted_replicas: int,
        names: Names,
        replicas: Replicas,
    ) -> None:
        """``replicas`` notes how those of the stream are."""
        self._reader = reader
        self._transport = transport
        self._ask = ask
        self._wanted_replicas = wanted_replicas
        self._replicas = replicas
        self._names = names
        self._bound = NO_BOUND

    async def ensure(self, bound: Bound | None = None) -> None:
        """Make the stream if it is not there, with ``bound``, or the one of the last time.

        Raises TopologyMismatch, LogUnavailable.
        """
        self._bound = bound or self._bound
        wanted = audit_stream(self._names, replicas=self._wanted_replicas)
        await ensure_stream(self._ask, wanted, may_turn_on=BATCHES, bound=self._bound)

    async def extent(self) -> TrailExtent:
        """What the stream holds. Raises LogReset when it is gone, LogUnavailable."""
        stream = self._names.audit_stream
        info = await proven_info(self._ask, stream)
        self._replicas.seen(stream, info)
        return TrailExtent(epoch_of(stream, info), info.state.first_seq, info.state.last_seq)

    async def read(self, after: int, limit: int) -> list[TrailMessage]:
        """The first messages above ``after``; none only if there is none. Raises LogUnavailable."""
        replies = await self._reader.messages(ALL_AUDIT, after + 1, limit)
        return [_read(reply, self._names) for reply in replies]

    async def write(self, entries: Sequence[TrailEntry]) -> list[int | None]:
        """Store up to `BATCH_MESSAGES` entries; answers the sequence of each, None for never.

        Raises LogUnavailable when it is not known that all are stored: write the same again.
        """
        # The server answers a message over its limit by closing the connection.
        most = self._transport.max_payload - ENVELOPE_BYTES
        fitting = [n for n, entry in enumerate(entries) if len(entry.payload) <= most]
        stored = await self._store([_message(entries[n]) for n in fitting])
        places: list[int | None] = [None] * len(entries)
        for n, sequence in zip(fitting, stored, strict=True):
            places[n] = sequence
        return places

    async def _store(self, messages: Sequence[Message]) -> Sequence[int | None]:
        if len(messages) > SINGLES and (last := await self._written_together(messages)):
            return range(last - len(messages) + 1, last + 1)
        answers = await asyncio.gather(
            *(self._transport.publish([message], WRITE_TIMEOUT_S) for message in messages)
        )
        return [_sequence(answer) for answer in answers]

    async def _written_together(self, messages: Sequence[Message]) -> int | None:
        """The last one's sequence, the others have those before it; None if they cannot go so."""
        match await self._transport.publish(messages, WRITE_TIMEOUT_S):
            case Stored(sequence):
                return sequence
            case Unknown(reason):
                raise LogUnavailable(f"the audit trail does not answer: {reason}")
            case WriteRefused():
                return None  # one of them may be stored already: each is sent alone


def _sequence(answer: WriteAnswer) -> int | None:
    """Where one entry is stored, None if it never will be. Raises LogUnavailable otherwise."""
    match answer:
        case Stored(sequence):
            return sequence
        case WriteRefused(code) if code == TOO_LARGE:
            return None
        case WriteRefused(_, reason) | Unknown(reason):
            raise LogUnavailable(f"the audit trail does not take entries: {reason}")


def _read(reply: Reply, names: Names) -> TrailMessage:
    headers = split_headers(reply.headers)
    return TrailMessage(
        int(headers[b"Nats-Sequence"]),
        names.inside(headers[b"Nats-Subject"].decode("utf-8", "replace")),
        headers.get(MESSAGE_ID, b"").decode("utf-8", "replace"),
        reply.payload,
    )


def _message(entry: TrailEntry) -> Message:
    lines = b"%b: %b\r\n" % (MESSAGE_ID, entry.id.encode())
    return Message(entry.subject, None, lines, entry.payload)
