"""Snapshots of the read models in a stream of their own, written by one process at a time.

The pieces of the newest snapshot stand on one subject, those of the one that is being written on
the other; its first message removes what stood there (a rollup), so the writer needs no right to
purge. Every message expects the sequence of the one before it as the last of the whole stream:
when another process writes, the next message of this one is refused. Nothing else locks.
"""

import base64
from collections.abc import AsyncGenerator, Sequence

import msgspec

from streams.codec import split_headers
from streams.jetstream.access import URL_ALONE, Credentials
from streams.jetstream.bounds import Bound, account_limit
from streams.jetstream.connection import Connection
from streams.jetstream.direct_get import DirectGets
from streams.jetstream.leadership import proven_info
from streams.jetstream.messages import Lost, Reply, render
from streams.jetstream.publisher import PublishAnswer
from streams.jetstream.reader import NO_MESSAGE, StoredAnswer, seconds_of
from streams.jetstream.refusals import LOST
from streams.jetstream.topology import (
    NOT_FOUND,
    InfoAnswer,
    ensure_stream,
    snapshots_stream,
)
from streams.json_values import UNREADABLE
from streams.log import LogReset, LogUnavailable, TopologyMismatch
from streams.snapshot_store import (
    PIECE_BYTES,
    KeptSnapshot,
    ReadModelSnapshot,
    SnapshotUnavailable,
)
from streams.subjects import NEWEST_SNAPSHOT, SNAPSHOT_PLACES

SPARE_BYTES = 64 * 1024  # of a message: headers, and what compression adds to random bytes
PIECES_AT_ONCE = 8
ROOM_SHARE = 0.3  # of what the account may store
ROLLUP = b"Nats-Rollup: sub\r\n"
_NONE = {NOT_FOUND, NO_MESSAGE}


class SnapshotPatience(msgspec.Struct, frozen=True, kw_only=True):
    """The seconds that an answer may take, and after which a silent writer is taken for dead.

    The server removes an older snapshot before it answers.
    """

    answer_s: float = 30.0
    alive_s: float = 60.0


SNAPSHOT_PATIENCE = SnapshotPatience()


class SnapshotStream:
    """`streams.snapshot_store.SnapshotStore` in JetStream, over a connection of its own."""

    def __init__(
        self, connection: Connection, *, replicas: int, max_bytes: int, patience: SnapshotPatience
    ) -> None:
        """``max_bytes`` is for both snapshots together; the stream is made by `begin`."""
        self._connection = connection
        self._names = connection.names
        self._stream = self._names.snapshots_stream
        self._direct = DirectGets(connection, self._stream)
        self._replicas = replicas
        self._max_bytes = max_bytes
        self._patience = patience

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        replicas: int,
        max_bytes: int,
        timeout_s: float,
        access: Credentials = URL_ALONE,
        patience: SnapshotPatience = SNAPSHOT_PATIENCE,
    ) -> "SnapshotStream":
        """Connect. Raises SnapshotUnavailable."""
        try:
            connection = await Connection.open(
                url, name="holdfast snapshots", timeout_s=timeout_s, access=access
            )
        except (LogUnavailable, TopologyMismatch) as error:
            raise SnapshotUnavailable(str(error)) from error
        return cls(connection, replicas=replicas, max_bytes=max_bytes, patience=patience)

    async def close(self) -> None:
        """See `SnapshotStore`."""
        await self._connection.close()

    async def newest(self) -> KeptSnapshot | None:
        """See `SnapshotStore`; the stream's leader answers."""
        question = {"last_by_subj": self._names.outside(NEWEST_SNAPSHOT)}
        try:
            reply = await self._ask(f"STREAM.MSG.GET.{self._stream}", msgspec.json.encode(question))
            answer = msgspec.json.decode(reply, type=StoredAnswer)
            if answer.message is not None:
                data = base64.b64decode(answer.message.data)
                return msgspec.json.decode(data, type=KeptSnapshot)
        except (LogUnavailable, *UNREADABLE) as error:
            raise SnapshotUnavailable(f"the newest snapshot cannot be read: {error}") from error
        if answer.error is not None and answer.error.err_code in _NONE:
            return None
        raise SnapshotUnavailable(f"the newest snapshot cannot be read: {answer.error}")

    async def begin(self) -> "StreamWriting | None":
        """See `SnapshotStore`."""
        try:
            room = await account_limit(self._ask, self._replicas)
            bound = Bound(most=self._max_bytes, share=ROOM_SHARE, total=room, required=True)
            wanted = snapshots_stream(self._names, replicas=self._replicas)
            await ensure_stream(self._ask, wanted, bound=bound)
            kept = await self.newest()
            info = await proven_info(self._ask, self._stream)
        except (LogReset, LogUnavailable, TopologyMismatch, *UNREADABLE) as error:
            wanted_bytes = f"snapshots.max_bytes is {self._max_bytes:,}"
            raise SnapshotUnavailable(f"{error} ({wanted_bytes})") from error
        if self._is_written_to(info, kept):
            return None
        place = next(each for each in SNAPSHOT_PLACES if kept is None or each != kept.subject)
        most = (bound.bytes_for(0) or self._max_bytes) // 2
        writing = StreamWriting(
            self._connection, place, info.state.last_seq, most, self._patience.answer_s
        )
        try:
            await writing.renew()
        except AnotherWrites:
            return None
        return writing

    def _is_written_to(self, info: InfoAnswer, kept: KeptSnapshot | None) -> bool:
        """Whether the last message is of a process that is at it."""
        last = info.state.last_seq
        if not last or (kept is not None and last == kept.first + kept.pieces):
            return False
        age_s = seconds_of(info.ts.encode()) - seconds_of(info.state.last_ts.encode())
        return age_s < self._patience.alive_s

    async def pieces(self, kept: KeptSnapshot) -> AsyncGenerator[Sequence[bytes]]:
        """See `SnapshotStore`; any replica answers."""
        at, end = kept.first, kept.first + kept.pieces
        while at < end:
            question: dict[str, object] = {
                "seq": at,
                "next_by_subj": self._names.outside(kept.subject),
                "batch": min(PIECES_AT_ONCE, end - at),
            }
            try:
                replies = (await self._direct.page(question)).replies
            except LogUnavailable as error:
                raise SnapshotUnavailable(str(error)) from error
            places = [int(split_headers(each.headers)[b"Nats-Sequence"]) for each in replies]
            if not places or places != [*range(at, at + len(places))]:
                raise SnapshotUnavailable(f"its piece at sequence {at} is gone")
            yield [each.payload for each in replies]
            at += len(places)

    async def _ask(self, question: str, body: bytes) -> bytes:
        subject = self._names.api(question)
        answer_s = self._patience.answer_s
        return (await self._connection.request(subject, body, timeout_s=answer_s)).payload


class AnotherWrites(SnapshotUnavailable):
    """Another process has written to the stream meanwhile."""


class StreamWriting:
    """`streams.snapshot_store.SnapshotWriting` in JetStream."""

    def __init__(
        self, connection: Connection, subject: str, last: int, most_bytes: int, answer_s: float
    ) -> None:
        """``last`` is the last sequence of the stream; the pieces may take ``most_bytes``."""
        self._answer_s = answer_s
        self._connection = connection
        self._subject = subject
        self._last = last
        self._most_bytes = most_bytes
        self._first = 0
        self._stored_bytes = 0
        self.piece_bytes = min(PIECE_BYTES, connection.max_payload - SPARE_BYTES)
        if self.piece_bytes <= 0:
            raise SnapshotUnavailable(f"the server takes {connection.max_payload} bytes at most")

    async def renew(self) -> None:
        """See `SnapshotWriting`."""
        if self._first:
            raise ValueError("it would remove the pieces")
        await self._publish(self._subject, ROLLUP, b"")

    async def add(self, piece: bytes) -> None:
        """See `SnapshotWriting`."""
        self._stored_bytes += len(piece)
        if self._stored_bytes > self._most_bytes:
            raise SnapshotUnavailable(
                f"the snapshot takes more than {self._most_bytes:,} bytes, half of what the two "
                "may take: raise snapshots.max_bytes"
            )
        await self._publish(self._subject, b"", piece)
        self._first = self._first or self._last

    async def finish(self, snapshot: ReadModelSnapshot) -> None:
        """See `SnapshotWriting`."""
        pieces = self._last + 1 - self._first if self._first else 0
        kept = KeptSnapshot(
            snapshot=snapshot, subject=self._subject, first=self._first, pieces=pieces
        )
        await self._publish(NEWEST_SNAPSHOT, ROLLUP, msgspec.json.encode(kept))

    async def _publish(self, subject: str, lines: bytes, payload: bytes) -> None:
        expected = b"Nats-Expected-Last-Sequence: %d\r\n" % self._last
        outside = self._connection.names.outside(subject).encode()
        reply, answer = self._connection.expect(self._answer_s)
        try:
            self._connection.send(render(outside, reply, lines + expected, payload))
        except ConnectionError as error:
            answer.cancel()
            raise SnapshotUnavailable(f"NATS is not connected: {error}") from error
        self._last = _stored_at(await answer)


def _stored_at(replied: Reply | Lost) -> int:
    """The sequence of a message. Raises SnapshotUnavailable if it is not known to be stored."""
    if isinstance(replied, Lost):
        raise SnapshotUnavailable(f"a piece may not be stored: {replied.reason}")
    if replied.status:
        raise SnapshotUnavailable("JetStream is not ready: no server answers for the stream")
    try:
        answer = msgspec.json.decode(replied.payload, type=PublishAnswer)
    except UNREADABLE as error:
        raise SnapshotUnavailable(f"an answer cannot be read: {error}") from error
    if answer.error is None:
        return answer.seq
    if answer.error.err_code in LOST:
        raise AnotherWrites(f"another process writes a snapshot: {answer.error.description}")
    raise SnapshotUnavailable(f"a piece is refused: {answer.error.description}")
