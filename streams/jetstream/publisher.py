"""How a write becomes JetStream messages, and what JetStream's answers mean."""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Mapping, Sequence

import msgspec

from streams.jetstream.connection import Connection
from streams.jetstream.messages import Lost, Reply, render
from streams.jetstream.reader import Reader
from streams.jetstream.refusals import is_full
from streams.jetstream.topology import ApiError
from streams.jetstream.transport import Found, Message, Stored, Unknown, WriteAnswer, WriteRefused
from streams.json_values import UNREADABLE


class PublishAnswer(msgspec.Struct, frozen=True):
    """JetStream's answer to a publish."""

    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


_publish_answer = msgspec.json.Decoder(PublishAnswer).decode


class JetStreamTransport:
    """Group commit's view of the stream: publish, and look up what became of it."""

    def __init__(
        self,
        connection: Connection,
        reader: Reader,
        *,
        on_named: Callable[[int], None] = lambda _: None,
        why_full: Callable[[str], str] = str,
    ) -> None:
        """``on_named`` gets each sequence that the stream's leader acknowledges or shows.

        ``why_full`` adds what gives room to the reason of a stream that is full.
        """
        self._connection = connection
        self._reader = reader
        self._on_named = on_named
        self._why_full = why_full
        self._batch_start = secrets.token_hex(6).encode()
        self._batch_count = itertools.count(1)

    @property
    def connected(self) -> bool:
        """See `streams.jetstream.transport.Transport`."""
        return self._connection.connected

    @property
    def down_s(self) -> float:
        """See `streams.jetstream.transport.Transport`."""
        return self._connection.down_s

    @property
    def max_payload(self) -> int:
        """See `streams.jetstream.transport.Transport`."""
        return self._connection.max_payload

    async def until_connected(self, timeout_s: float) -> bool:
        """See `streams.jetstream.transport.Transport`."""
        return await self._connection.until_connected(timeout_s)

    def publish(self, messages: Sequence[Message], timeout_s: float) -> asyncio.Future[WriteAnswer]:
        """Send one message, or several as one atomic batch (ADR-50), in one write."""
        reply, replied = self._connection.expect(timeout_s)
        answer: asyncio.Future[WriteAnswer] = asyncio.get_running_loop().create_future()

        def done(replied: asyncio.Future[Reply | Lost]) -> None:
            if answer.done():
                return
            try:
                answer.set_result(self._answer(replied.result()))
            except UNREADABLE as error:
                answer.set_result(Unknown(f"an answer that cannot be read: {error}"))

        replied.add_done_callback(done)
        try:
            self._connection.send(self._rendered(messages, reply))
        except ConnectionError as error:
            replied.set_result(Lost(str(error)))
        return answer

    def _rendered(self, messages: Sequence[Message], reply: bytes) -> bytes:
        # Of a batch only the last message, which commits, is answered; a refusal of an earlier one
        # shows there.
        begin = self._connection.names.begin.encode()
        batch_id = b"%b-%x" % (self._batch_start, next(self._batch_count))
        commands: list[bytes] = []
        for place, message in enumerate(messages, 1):
            last = place == len(messages)
            lines = message.lines
            if message.expected is not None:
                lines += b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % message.expected
            if len(messages) > 1:
                lines += b"Nats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n" % (batch_id, place)
                lines += b"Nats-Batch-Commit: 1\r\n" if last else b""
            subject = begin + message.subject.encode()
            commands.append(render(subject, reply if last else b"", lines, message.payload))
        return b"".join(commands)

    async def first_after(self, subject: str, sequence: int, timeout_s: float) -> Found | None:
        """See `streams.jetstream.transport.Transport`."""
        found = await self._reader.leader_first_after(subject, sequence, timeout_s)
        if found is None:
            return None
        self._on_named(found[0])
        return Found(*found)

    async def last_of(self, subjects: Sequence[str]) -> Mapping[str, int]:
        """See `streams.jetstream.transport.Transport`."""
        return await self._reader.last_of(subjects)

    def _answer(self, replied: Reply | Lost) -> WriteAnswer:
        match replied:
            case Lost(reason):
                return Unknown(reason)
            case Reply() if replied.status:
                return WriteRefused(503, "JetStream is not ready: no server answers for the stream")
            case Reply():
                answer = _publish_answer(replied.payload)
                if answer.error is None:
                    self._on_named(answer.seq)
                    return Stored(answer.seq)
                code, reason = answer.error.err_code, answer.error.description
                if is_full(code, reason):
                    reason = self._why_full(reason)
                return WriteRefused(code, reason)
