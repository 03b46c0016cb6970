"""A pull consumer that is checked: what it brings follows its position without hole or repetition.

A hole in the *consumer's* sequence, a consumer that is gone and an unexpected status raise Broken,
after the last good message; the caller then makes another consumer or reads another way. Holes in
the *stream's* sequence are legitimate, since heartbeats expire.
"""

import contextlib
import secrets
import time
from asyncio import Event, timeout
from collections.abc import Sequence

import msgspec

from streams.codec import decode, split_headers
from streams.jetstream.connection import Connection
from streams.jetstream.messages import Delivery, render, status_of
from streams.jetstream.topology import ApiError
from streams.log import BadFact, Fact, LogUnavailable
from streams.steps import HELD_S

PULL_MESSAGES = 1_000
PULL_BYTES = 8 * 1024 * 1024  # of one request, or twice the largest message: one has to fit
PULL_EXPIRES_S = 30
HEARTBEAT_S = 5
API_TIMEOUT_S = 2.0
NANOSECONDS = 1_000_000_000

# Statuses that end one pull request and nothing else; the rest mean a broken consumer.
_ENDED = {b"404", b"408"}
_HARMLESS_409 = (b"Message Size Exceeds MaxBytes", b"Batch Completed", b"Exceeded MaxWaiting")


class ConsumerBroken(Exception):
    """The consumer cannot be trusted any more."""


class ConsumerAnswer(msgspec.Struct, frozen=True):
    """The consumer was made, or why not."""

    error: ApiError | None = None


class Consumer:
    """One pull consumer on ``stream`` above ``after``, between `open` and `shut`.

    ``subjects`` are its filters; none is everything, and quicker. At most ``pulls`` requests of
    `PULL_MESSAGES` are outstanding; ``inactive_s`` after the last the server forgets the consumer.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        after: int,
        *,
        subjects: Sequence[str] = (),
        pulls: int,
        inactive_s: int,
    ) -> None:
        self.position = after
        self.at_end = False  # whether the server had nothing more after the last message taken
        self._connection = connection
        self._stream = stream
        self._name = f"tail-{secrets.token_hex(8)}"
        self._subjects = subjects
        self._pulls = pulls
        self._inactive_s = inactive_s
        self._handle: int | None = None
        self._reply = b""
        self._consumed = 0  # the consumer's sequence of the last message taken
        self._outstanding = 0  # messages that were asked for and not taken yet
        self._arrived: list[Delivery] = []
        self._taken = 0  # of those arrived
        self._news = Event()
        self._broken: str | None = None

    async def open(self) -> None:
        """Make the consumer and ask for its first messages. Raises LogUnavailable."""
        inbox = self._connection.new_inbox()
        self._reply = inbox.encode()
        self._handle = await self._connection.listen(inbox, self._deliver)
        answer = await self._connection.request(
            self._connection.names.api(f"CONSUMER.CREATE.{self._stream}.{self._name}"),
            self._config(),
            timeout_s=API_TIMEOUT_S,
        )
        made = msgspec.json.decode(answer.payload, type=ConsumerAnswer)
        if made.error is not None:
            raise LogUnavailable(f"no consumer: {made.error.description}")
        self._pull()

    async def shut(self) -> None:
        """Delete the consumer, if it was opened."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        with contextlib.suppress(LogUnavailable, ConnectionError):
            await self._connection.unlisten(handle)
            # The answer is not awaited; if it is lost the server forgets the consumer by itself.
            subject = self._connection.names.api(f"CONSUMER.DELETE.{self._stream}.{self._name}")
            self._connection.send(render(subject.encode(), b"", b"", b""))

    def break_off(self, reason: str) -> None:
        """Let `until_news` and `take` raise Broken once what has arrived is taken."""
        self._broken = reason
        self._news.set()

    async def has_news(self, wait_s: float) -> bool:
        """Wait for something to `take`; False when nothing came for ``wait_s``."""
        if self._taken == len(self._arrived) and self._broken is None:
            self._news.clear()
            try:
                async with timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                return False
        return True

    async def until_news(self, silence_s: float) -> None:
        """Wait for something to `take`. Raises Broken when nothing came for ``silence_s``."""
        if not await self.has_news(silence_s):
            raise ConsumerBroken(f"nothing arrived for {silence_s:g} s")

    def take(self, limit: int) -> list[Fact | BadFact]:
        """Up to ``limit`` facts of what has arrived, as many as are decoded within `HELD_S`.

        Asks for more in time for it to come meanwhile. Raises Broken, but never instead of facts.
        """
        facts = self._decode(limit)
        if self._taken == len(self._arrived):
            self._arrived, self._taken = [], 0
        if self._broken is None:
            self._pull()
        if self._broken is not None and not facts:
            raise ConsumerBroken(self._broken)
        return facts

    def _config(self) -> bytes:
        # Without a filter when there is none: the server is quicker.
        wanted = [self._connection.names.outside(each) for each in self._subjects]
        filters = {"filter_subjects": wanted} if wanted else {}
        return msgspec.json.encode({
            "stream_name": self._stream,
            "config": {
                "name": self._name,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self.position + 1,
                "ack_policy": "none",
                "replay_policy": "instant",
                "inactive_threshold": self._inactive_s * NANOSECONDS,
                "max_waiting": 2 * self._pulls,
                "mem_storage": True,
                "num_replicas": 1,
                **filters,
            },
        })  # fmt: skip

    def _deliver(self, messages: Sequence[Delivery]) -> None:
        self._arrived += messages
        self._news.set()

    def _decode(self, limit: int) -> list[Fact | BadFact]:
        facts: list[Fact | BadFact] = []
        stop = min(len(self._arrived), self._taken + limit)
        begin = self._connection.names.begin.encode()
        pause_at = time.monotonic() + HELD_S
        while self._taken < stop and not (facts and time.monotonic() >= pause_at):
            subject, reply, headers, payload = self._arrived[self._taken]
            self._taken += 1
            if not reply.startswith(b"$JS.ACK."):
                self._on_status(headers)
                if self._broken is not None:
                    break
                continue
            sequence, consumed, nanoseconds, pending = parse_reply(reply)
            if consumed != self._consumed + 1 or sequence <= self.position:
                self._broken = f"hole: message {consumed} came after {self._consumed}"
                break
            facts.append(
                decode(
                    sequence,
                    nanoseconds / NANOSECONDS,
                    subject.removeprefix(begin).decode("utf-8", "replace"),
                    headers,
                    payload,
                )
            )
            self._consumed = consumed
            self.position = sequence
            self._outstanding -= 1
            self.at_end = pending == b"0"
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
        while self._outstanding <= (self._pulls - 1) * PULL_MESSAGES:
            question = f"CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
            subject = self._connection.names.api(question).encode()
            try:
                self._connection.send(render(subject, self._reply, b"", self._pull_request()))
            except ConnectionError:
                return  # the next connection brings a new consumer
            self._outstanding += PULL_MESSAGES

    def _pull_request(self) -> bytes:
        return msgspec.json.encode({
            "batch": PULL_MESSAGES,
            "max_bytes": max(PULL_BYTES, 2 * self._connection.max_payload),
            "expires": PULL_EXPIRES_S * NANOSECONDS,
            "idle_heartbeat": HEARTBEAT_S * NANOSECONDS,
        })  # fmt: skip


def parse_reply(reply: bytes) -> tuple[int, int, int, bytes]:
    """(stream sequence, consumer sequence, stream time in ns, pending) of a ``$JS.ACK`` subject.

    Its old form has nine tokens; with a domain and an account hash there are two more before the
    stream's name, and perhaps a random one at the end.
    """
    tokens = reply.split(b".")
    at = 5 if len(tokens) == 9 else 7  # noqa: PLR2004  # explained above
    return int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 2]), tokens[at + 3]
