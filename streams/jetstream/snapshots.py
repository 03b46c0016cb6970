"""Copies of whole streams as JetStream makes them: taken while others write, and restored.

The protocol is nats-server's own (`$JS.API.STREAM.SNAPSHOT` and `RESTORE`), so the `nats` command
line can restore what is saved here, and the other way round.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

import msgspec

from streams.jetstream.connection import Connection
from streams.jetstream.messages import Delivery, render, status_of
from streams.jetstream.topology import ApiError
from streams.json_values import UNREADABLE
from streams.log import LogUnavailable

CHUNK_BYTES = 128 * 1024
SILENCE_S = 30.0
END = b""


class StreamCopy(msgspec.Struct, frozen=True):
    """What a restore needs to know beside the bytes: the stream's configuration and its numbers."""

    config: dict[str, Any]
    state: dict[str, Any]

    @property
    def last_sequence(self) -> int:
        """The sequence of the last message."""
        return int(self.state.get("last_seq", 0))

    @property
    def messages(self) -> int:
        """How many messages the stream held."""
        return int(self.state.get("messages", 0))


class _SnapshotAnswer(msgspec.Struct, frozen=True):
    config: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    error: ApiError | None = None


class _RestoreAnswer(msgspec.Struct, frozen=True):
    deliver_subject: str = ""
    error: ApiError | None = None


class StreamSnapshot:
    """One stream's copy under way: iterate `chunks` once; `copy` says what they are of."""

    def __init__(self, connection: Connection, stream: str, patience_s: float = SILENCE_S) -> None:
        self._connection = connection
        self._stream = stream
        self._patience_s = patience_s
        self.copy = StreamCopy({}, {})

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The bytes of the stream as it was when the server began. Raises LogUnavailable.

        The server sends the next ones when those before have been taken.
        """
        arrived: asyncio.Queue[Delivery] = asyncio.Queue()

        def deliver(messages: Sequence[Delivery]) -> None:
            for message in messages:
                arrived.put_nowait(message)

        inbox = self._connection.new_inbox()
        handle = await self._connection.listen(inbox, deliver)
        try:
            self.copy = await self._begin(inbox)
            while True:
                _, reply, headers, payload = await self._next(arrived)
                if payload == END:
                    if (status := status_of(headers)) not in (b"", b"204"):
                        raise _failed(self._stream, f"the server ended it with {status.decode()}")
                    return
                yield payload
                if reply:
                    self._acknowledge(reply)
        finally:
            await self._connection.unlisten(handle)

    async def _begin(self, inbox: str) -> StreamCopy:
        wanted = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": CHUNK_BYTES}
        reply = await _ask(self._connection, f"STREAM.SNAPSHOT.{self._stream}", wanted)
        answer = msgspec.json.decode(reply, type=_SnapshotAnswer)
        if answer.error is not None or answer.config is None or answer.state is None:
            raise _failed(self._stream, answer.error.description if answer.error else "no answer")
        return StreamCopy(answer.config, answer.state)

    async def _next(self, arrived: "asyncio.Queue[Delivery]") -> Delivery:
        try:
            async with asyncio.timeout(self._patience_s):
                return await arrived.get()
        except TimeoutError:
            silence = f"nothing arrived for {self._patience_s:g} s"
            raise _failed(self._stream, silence) from None

    def _acknowledge(self, reply: bytes) -> None:
        try:
            self._connection.send(render(reply, b"", b"", b""))
        except ConnectionError as error:
            raise _failed(self._stream, str(error)) from error


async def restore_stream(
    connection: Connection, stream: str, copy: StreamCopy, chunks: Iterable[bytes]
) -> None:
    """Make ``stream``, which must not exist, of a copy's bytes. Raises LogUnavailable."""
    wanted = {"config": copy.config, "state": copy.state}
    reply = await _ask(connection, f"STREAM.RESTORE.{stream}", wanted)
    answer = msgspec.json.decode(reply, type=_RestoreAnswer)
    if answer.error is not None:
        raise LogUnavailable(f"stream {stream} cannot be restored: {answer.error.description}")
    for chunk in chunks:
        taken = await connection.request(answer.deliver_subject, chunk, timeout_s=SILENCE_S)
        if taken.payload:
            _check_restored(stream, taken.payload)
    made = await connection.request(answer.deliver_subject, END, timeout_s=SILENCE_S)
    _check_restored(stream, made.payload)


def _check_restored(stream: str, payload: bytes) -> None:
    """Raise LogUnavailable if the server refused a chunk or the whole."""
    try:
        answer = msgspec.json.decode(payload, type=_RestoreAnswer)
    except UNREADABLE:
        reason = payload.decode(errors="replace")
    else:
        if answer.error is None:
            return
        reason = answer.error.description
    raise LogUnavailable(f"stream {stream} cannot be restored: {reason}")


async def _ask(connection: Connection, question: str, body: dict[str, Any]) -> bytes:
    subject = connection.names.api(question)
    reply = await connection.request(subject, msgspec.json.encode(body), timeout_s=SILENCE_S)
    return reply.payload


def _failed(stream: str, reason: str) -> LogUnavailable:
    return LogUnavailable(f"stream {stream} cannot be copied: {reason}")
