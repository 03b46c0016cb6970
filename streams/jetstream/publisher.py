"""How a write becomes JetStream messages, and what JetStream's answers mean."""

import asyncio
import itertools
import secrets
from collections.abc import Mapping, Sequence

import msgspec

from streams.jetstream.connection import Connection
from streams.jetstream.messages import Lost, Reply, render
from streams.jetstream.names import Names
from streams.jetstream.reader import Reader
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

    def __init__(self, connection: Connection, reader: Reader) -> None:
        self._connection = connection
        self._reader = reader
        self._batch_start = secrets.token_hex(6)
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
                answer.set_result(_answer(replied.result()))
            except UNREADABLE as error:
                answer.set_result(Unknown(f"an answer that cannot be read: {error}"))

        replied.add_done_callback(done)
        if len(messages) == 1:
            commands = _render_single(messages[0], reply, self._connection.names)
        else:
            batch_id = b"%b-%x" % (self._batch_start.encode(), next(self._batch_count))
            commands = _render_batch(messages, batch_id, reply, self._connection.names)
        try:
            self._connection.send(commands)
        except ConnectionError as error:
            replied.set_result(Lost(str(error)))
        return answer

    async def first_after(self, subject: str, sequence: int, timeout_s: float) -> Found | None:
        """See `streams.jetstream.transport.Transport`."""
        found = await self._reader.leader_first_after(subject, sequence, timeout_s)
        return None if found is None else Found(*found)

    async def last_of(self, subjects: Sequence[str]) -> Mapping[str, int]:
        """See `streams.jetstream.transport.Transport`."""
        return await self._reader.last_of(subjects)


def _expectation(message: Message) -> bytes:
    if message.expected is None:
        return message.lines
    return b"%bNats-Expected-Last-Subject-Sequence: %d\r\n" % (message.lines, message.expected)


def _render_single(message: Message, reply: bytes, names: Names) -> bytes:
    subject = names.outside(message.subject).encode()
    return render(subject, reply, _expectation(message), message.payload)


def _render_batch(
    messages: Sequence[Message], batch_id: bytes, reply: bytes, names: Names
) -> bytes:
    # Only the last message, which commits, is answered; a refusal of an earlier one shows there.
    commands: list[bytes] = []
    for place, message in enumerate(messages, 1):
        last = place == len(messages)
        lines = b"%bNats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n%b" % (
            _expectation(message),
            batch_id,
            place,
            b"Nats-Batch-Commit: 1\r\n" if last else b"",
        )
        subject = names.outside(message.subject).encode()
        commands.append(render(subject, reply if last else b"", lines, message.payload))
    return b"".join(commands)


def _answer(replied: Reply | Lost) -> WriteAnswer:
    match replied:
        case Lost(reason):
            return Unknown(reason)
        case Reply() if replied.status:
            return WriteRefused(503, "JetStream is not ready: no server answers for the stream")
        case Reply():
            answer = _publish_answer(replied.payload)
            if answer.error is not None:
                return WriteRefused(answer.error.err_code, answer.error.description)
            return Stored(answer.seq)
