"""A tail on the log: every fact above a position, in order, in batches, across every disturbance.

It is a pull consumer of its own with a sequence check of its own. Whatever looks wrong (a hole in
the *consumer's* sequence, a consumer that is gone, silence where a heartbeat was due, a new
connection) has one cure: a new consumer from the last position + 1. Holes in the *stream's*
sequence are legitimate, since heartbeats expire.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from streams.codec import decode, split_headers
from streams.connection import Connection, render, status_of
from streams.log import BadFact, Fact, LogReset, LogUnavailable
from streams.topology import ApiError

PULL_MESSAGES = 1_000
PULLS = 3
PULL_BYTES = 8 * 1024 * 1024  # of one request, or twice the largest message: one has to fit
PULL_EXPIRES_S = 30
HEARTBEAT_S = 5
SILENCE_S = 2.5 * HEARTBEAT_S  # after which the consumer counts as gone
INACTIVE_S = 60  # after which the server forgets a consumer that nobody pulls from
SLICE = 500  # facts yielded at a time: some 5 ms of decoding, so the loop stays responsive
API_TIMEOUT_S = 2.0
NANOSECONDS = 1_000_000_000

# Statuses that end one pull request and nothing else; the rest mean a broken consumer.
_ENDED = {b"404", b"408"}
_HARMLESS_409 = (b"Message Size Exceeds MaxBytes", b"Batch Completed", b"Exceeded MaxWaiting")

Arrival = tuple[bytes, bytes, bytes, bytes]


class StreamPosition(msgspec.Struct, frozen=True, gc=False):
    """Which log this is (see LogState.epoch) and its last sequence."""

    epoch: str
    head: int


class ConsumerAnswer(msgspec.Struct, frozen=True):
    """The consumer was made, or why not."""

    error: ApiError | None = None


class _BrokenError(Exception):
    """The consumer cannot be trusted any more; make a new one."""


class Follower:
    """One tail on stream ``stream`` above ``after``; iterate `batches` once.

    ``position_of`` asks the log who it is: a log that was made anew raises LogReset. ``on_restart``
    hears why a consumer had to be replaced.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        after: int,
        *,
        position_of: Callable[[], Awaitable[StreamPosition]],
        on_restart: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._position = after
        self._position_of = position_of
        self._on_restart = on_restart
        self._epoch: str | None = None
        self._consumer = ""
        self._handle: int | None = None
        self._reply = b""
        self._pull_body = b""
        self._consumed = 0  # the consumer's sequence of the last message taken
        self._outstanding = 0  # messages that the server may still send unasked
        self._arrived: list[Arrival] = []
        self._news = asyncio.Event()
        self._broken: str | None = None

    async def batches(self) -> AsyncGenerator[list[Fact | BadFact], None]:
        """Yield facts for ever. Raises LogReset only."""
        unwatch = self._connection.watch(self._interrupt)
        try:
            while True:
                await self._open()
                try:
                    while True:
                        await self._until_news()
                        async for facts in self._take():
                            yield facts
                except _BrokenError as reason:
                    self._on_restart(str(reason))
                finally:
                    await self._shut()
        finally:
            unwatch()

    # Opening and shutting.

    async def _open(self) -> None:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(LogUnavailable),
            wait=wait_random_exponential(multiplier=0.05, max=1),
        ):
            with attempt:
                try:
                    await self._open_once()
                except LogUnavailable as error:
                    await self._shut()
                    self._on_restart(str(error))
                    raise

    async def _open_once(self) -> None:
        await self._check_log()
        self._consumer = f"tail-{secrets.token_hex(8)}"
        inbox = self._connection.new_inbox()
        self._reply = inbox.encode()
        self._pull_body = self._pull_request()
        self._consumed = self._outstanding = 0
        self._arrived = []
        self._broken = None
        self._handle = await self._connection.listen(inbox, self._deliver)
        answer = await self._connection.request(
            f"$JS.API.CONSUMER.CREATE.{self._stream}.{self._consumer}",
            self._consumer_config(),
            timeout_s=API_TIMEOUT_S,
        )
        made = msgspec.json.decode(answer.payload, type=ConsumerAnswer)
        if made.error is not None:
            raise LogUnavailable(f"no consumer: {made.error.description}")
        self._pull()

    async def _check_log(self) -> None:
        found = await self._position_of()
        if self._epoch is None:
            self._epoch = found.epoch
        if found.epoch != self._epoch:
            raise LogReset(f"stream {self._stream} was made anew")
        if found.head < self._position:
            raise LogReset(
                f"stream {self._stream} ends at {found.head}, before {self._position}: "
                "it is not the log that was followed"
            )

    def _consumer_config(self) -> bytes:
        # No filter: the stream holds nothing but plans, and the server is quicker without one.
        return msgspec.json.encode({
            "stream_name": self._stream,
            "config": {
                "name": self._consumer,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self._position + 1,
                "ack_policy": "none",
                "replay_policy": "instant",
                "inactive_threshold": INACTIVE_S * NANOSECONDS,
                "max_waiting": 2 * PULLS,
                "mem_storage": True,
                "num_replicas": 1,
            },
        })  # fmt: skip

    def _pull_request(self) -> bytes:
        return msgspec.json.encode({
            "batch": PULL_MESSAGES,
            "max_bytes": max(PULL_BYTES, 2 * self._connection.max_payload),
            "expires": PULL_EXPIRES_S * NANOSECONDS,
            "idle_heartbeat": HEARTBEAT_S * NANOSECONDS,
        })  # fmt: skip

    async def _shut(self) -> None:
        handle, self._handle = self._handle, None
        if handle is None:
            return
        with contextlib.suppress(LogUnavailable, ConnectionError):
            await self._connection.unlisten(handle)
            # Nobody waits for the answer; if it is lost the server forgets the consumer by itself.
            subject = f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}"
            self._connection.send(render(subject.encode(), b"", b"", b""))

    # Arriving.

    def _deliver(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        self._arrived.append((subject, reply, headers, payload))
        self._news.set()

    def _interrupt(self) -> None:
        # Old pull requests died with the old socket; a new one cannot tell what was missed.
        if self._connection.connected:
            self._broken = "reconnected"
            self._news.set()

    async def _until_news(self) -> None:
        if not self._arrived and self._broken is None:
            self._news.clear()
            try:
                async with asyncio.timeout(SILENCE_S):
                    await self._news.wait()
            except TimeoutError:
                raise _BrokenError(f"nothing heard for {SILENCE_S:g} s") from None

    async def _take(self) -> AsyncGenerator[list[Fact | BadFact], None]:
        """Decode what has arrived, slice by slice; raises _BrokenError after the last good one."""
        arrived, self._arrived = self._arrived, []
        for start in range(0, len(arrived), SLICE):
            if start:
                await asyncio.sleep(0)
            facts = self._decode(arrived[start : start + SLICE])
            if facts:
                yield facts
            if self._broken is not None:
                raise _BrokenError(self._broken)
        self._pull()
        if self._broken is not None:
            raise _BrokenError(self._broken)

    def _decode(self, arrived: list[Arrival]) -> list[Fact | BadFact]:
        facts: list[Fact | BadFact] = []
        for subject, reply, headers, payload in arrived:
            if not reply.startswith(b"$JS.ACK."):
                self._on_status(headers)
                if self._broken is not None:
                    break
                continue
            sequence, consumed, nanoseconds = parse_reply(reply)
            if consumed != self._consumed + 1 or sequence <= self._position:
                self._broken = f"hole: message {consumed} came after {self._consumed}"
                break
            facts.append(
                decode(
                    sequence,
                    nanoseconds / NANOSECONDS,
                    subject.decode("utf-8", "replace"),
                    headers,
                    payload,
                )
            )
            self._consumed = consumed
            self._position = sequence
            self._outstanding -= 1
        return facts

    def _on_status(self, headers: bytes) -> None:
        status = status_of(headers)
        if status == b"100":
            return
        if status in _ENDED or any(text in headers for text in _HARMLESS_409):
            unserved = split_headers(headers).get(b"Nats-Pending-Messages", b"%d" % PULL_MESSAGES)
            self._outstanding -= int(unserved)
            return
        line = headers.split(b"\r\n", 1)[0]
        self._broken = line.decode("utf-8", "replace") or "an unreadable status"

    def _pull(self) -> None:
        while self._outstanding <= (PULLS - 1) * PULL_MESSAGES:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}".encode()
            try:
                self._connection.send(render(subject, self._reply, b"", self._pull_body))
            except ConnectionError:
                return  # the next connection brings a new consumer
            self._outstanding += PULL_MESSAGES


def parse_reply(reply: bytes) -> tuple[int, int, int]:
    """(stream sequence, consumer sequence, stream time in ns) out of a ``$JS.ACK`` subject.

    Its old form has nine tokens; with a domain and an account hash there are two more before the
    stream's name, and perhaps a random one at the end.
    """
    tokens = reply.split(b".")
    at = 5 if len(tokens) == 9 else 7  # noqa: PLR2004  # explained above
    return int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 2])
