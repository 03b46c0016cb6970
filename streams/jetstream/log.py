"""The real log: Holdfast's facts in NATS JetStream.

This file says how a write becomes JetStream messages and what JetStream's answers mean. Its
neighbours are the connection, the tail, the reader and the group commit.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from math import inf

import msgspec
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from streams.jetstream.audit_stream import Trail
from streams.jetstream.connection import Connection, Lost, Reply, render
from streams.jetstream.group_commit import (
    DEFAULT_LIMITS,
    Answer,
    Appender,
    AppenderLimits,
    Found,
    Message,
    Observer,
    Refused,
    Stored,
    Unknown,
)
from streams.jetstream.leadership import PATIENCE, Leadership, Patience, proven_info
from streams.jetstream.reader import Reader, seconds_of
from streams.jetstream.tail import Follower, StreamPosition
from streams.jetstream.topology import (
    AUDIT_STREAM,
    PLANS_STREAM,
    ApiError,
    Config,
    InfoAnswer,
    ensure_stream,
    epoch_of,
    info_of,
    plans_stream,
)
from streams.log import (
    Appended,
    BadFact,
    Conflict,
    Draft,
    Fact,
    LogState,
    LogUnavailable,
)
from streams.subjects import ALL_PLANS, subject_of, tasks_of

API_TIMEOUT_S = 2.0
SETTLE_S = 30.0  # longer than elections and doubts take
ASKED_S = 0.5  # an asker that gave up after less says nothing about the log
SETUP_TIMEOUT_S = 5.0
WHOLE_WAITS_S = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0)  # for replicas that lag


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
        """See `streams.jetstream.group_commit.Transport`."""
        return self._connection.connected

    @property
    def down_s(self) -> float:
        """See `streams.jetstream.group_commit.Transport`."""
        return self._connection.down_s

    @property
    def max_payload(self) -> int:
        """See `streams.jetstream.group_commit.Transport`."""
        return self._connection.max_payload

    async def until_connected(self, timeout_s: float) -> bool:
        """See `streams.jetstream.group_commit.Transport`."""
        return await self._connection.until_connected(timeout_s)

    def publish(self, messages: Sequence[Message], timeout_s: float) -> asyncio.Future[Answer]:
        """Send one message, or several as one atomic batch (ADR-50), in one write."""
        reply, replied = self._connection.expect(timeout_s)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(replied: asyncio.Future[Reply | Lost]) -> None:
            if answer.done():
                return
            try:
                answer.set_result(_answer(replied.result()))
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                answer.set_result(Unknown(f"an answer that cannot be read: {error}"))

        replied.add_done_callback(done)
        if len(messages) == 1:
            commands = _render_single(messages[0], reply)
        else:
            batch_id = b"%b-%x" % (self._batch_start.encode(), next(self._batch_count))
            commands = _render_batch(messages, batch_id, reply)
        try:
            self._connection.send(commands)
        except ConnectionError as error:
            replied.set_result(Lost(str(error)))
        return answer

    async def first_after(self, subject: str, sequence: int, timeout_s: float) -> Found | None:
        """See `streams.jetstream.group_commit.Transport`."""
        found = await self._reader.leader_first_after(subject, sequence, timeout_s)
        return None if found is None else Found(*found)

    async def last_of(self, subjects: Sequence[str]) -> Mapping[str, int]:
        """See `streams.jetstream.group_commit.Transport`."""
        return await self._reader.last_of(subjects)


def _expectation(message: Message) -> bytes:
    if message.expected is None:
        return message.lines
    return b"%bNats-Expected-Last-Subject-Sequence: %d\r\n" % (message.lines, message.expected)


def _render_single(message: Message, reply: bytes) -> bytes:
    return render(message.subject.encode(), reply, _expectation(message), message.payload)


def _render_batch(messages: Sequence[Message], batch_id: bytes, reply: bytes) -> bytes:
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
        subject = message.subject.encode()
        commands.append(render(subject, reply if last else b"", lines, message.payload))
    return b"".join(commands)


def _answer(replied: Reply | Lost) -> Answer:
    match replied:
        case Lost(reason):
            return Unknown(reason)
        case Reply() if replied.status:
            return Refused(503, "JetStream is not ready: no server answers for the stream")
        case Reply():
            answer = _publish_answer(replied.payload)
            if answer.error is not None:
                return Refused(answer.error.err_code, answer.error.description)
            return Stored(answer.seq)


class JetStreamLog:
    """`streams.log.Log` on the stream ``PLANS``, with ``AUDIT`` beside it. Made by `connect`."""

    def __init__(
        self,
        connection: Connection,
        *,
        limits: AppenderLimits,
        observer: Observer | None,
        replicas: int = 1,
        patience: Patience = PATIENCE,
    ) -> None:
        self._connection = connection
        self._leadership = Leadership(connection.leave, patience)
        self._owed_s = patience.owed_s
        self._tail: Follower | None = None
        self._reader = Reader(connection, PLANS_STREAM, self.prove)
        transport = JetStreamTransport(connection, self._reader)
        self._appender = Appender(transport, limits=limits, observer=observer)
        audit = Reader(connection, AUDIT_STREAM, self.prove_audit)
        self.trail = Trail(audit, transport, self._ask, replicas)
        self._follow_error: str | None = None
        self.new_consumers = 0  # how often a tail had to start anew

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        replicas: int = 1,
        max_bytes: int | None = None,
        limits: AppenderLimits = DEFAULT_LIMITS,
        connect_timeout_s: float = 10.0,
        name: str = "holdfast",
        observer: Observer | None = None,
        patience: Patience = PATIENCE,
    ) -> "JetStreamLog":
        """Connect, and make or check the streams.

        Raises LogUnavailable when within ``connect_timeout_s`` there is no server, or no leader
        with a quorum; and TopologyMismatch when a stream exists that Holdfast cannot rely on.
        ``url`` may name several servers of a cluster, separated by commas.
        """
        deadline = time.monotonic() + connect_timeout_s
        connection = await Connection.open(url, name=name, timeout_s=connect_timeout_s)
        try:
            log = cls(
                connection,
                limits=limits,
                observer=observer,
                replicas=replicas,
                patience=patience,
            )
            await log._ensure(plans_stream(replicas=replicas, max_bytes=max_bytes), deadline)
        except BaseException:
            await connection.close()
            raise
        return log

    async def _ensure(self, wanted: Config, deadline: float) -> None:
        """Make or check the streams; a cluster that is just forming refuses that for a while."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(LogUnavailable),
            wait=wait_random_exponential(multiplier=0.1, max=1),
            stop=lambda _: time.monotonic() >= deadline,
            reraise=True,
        ):
            with attempt:
                await ensure_stream(self._ask, wanted)
                await self.trail.ensure()
                await self.prove()

    @property
    def connected(self) -> bool:
        """Whether the server is there as far as this end knows."""
        return self._connection.connected

    @property
    def last_error(self) -> str | None:
        """What was last wrong with the line or a tail; None when nothing is."""
        return self._connection.last_error or self._follow_error

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and came back."""
        return self._connection.reconnects

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change`` at every loss and return of the server; returns how to stop it."""
        return self._connection.watch(on_change)

    async def append(self, draft: Draft) -> Appended | Conflict:
        """See `streams.log.Log.append`."""
        outcome = await self._appender.append(draft)
        if isinstance(outcome, Appended):
            self._leadership.names(outcome.sequence)
        return outcome

    async def follow(self, after: int) -> AsyncIterator[list[Fact | BadFact]]:
        """See `streams.log.Log.follow`."""
        self._leadership.names(after)
        follower = self._tail = Follower(
            self._connection,
            PLANS_STREAM,
            after,
            position_of=self._position,
            read_after=self.scan,
            named=lambda: self._leadership.named,
            on_restart=self._on_restart,
            owed_s=self._owed_s,
        )
        tail = follower.batches()
        try:
            async for facts in tail:
                self._follow_error = None
                yield facts
        finally:
            self._tail = None
            await tail.aclose()

    @property
    def uncertain(self) -> str | None:
        """Why the last answer about the log's head did not count; None if it did."""
        return self._leadership.trouble

    @property
    def append_waiting_s(self) -> float:
        """For how many seconds the oldest append has waited for its outcome; 0 for none."""
        return self._appender.waiting_s

    @property
    def tail_silent_s(self) -> float:
        """For how many seconds the tail has owed a sequence that the log is known to have."""
        return self._tail.silent_s if self._tail is not None else 0.0

    async def read(
        self, plan_id: str, task_id: str | None = None, *, after: int = 0, up_to: int | None = None
    ) -> list[Fact | BadFact]:
        """See `streams.log.Log.read`."""
        start = await self._reader.leader_first_after(subject_of(plan_id), 0)
        filters = [subject_of(plan_id, task_id)]
        if task_id is None:
            filters.append(tasks_of(plan_id))
        # A wildcard walks the log from where it starts, so it starts at the plan's first message.
        facts = await self._whole(filters, 1 if start is None else start[0])
        last = inf if up_to is None else up_to
        return [fact for fact in facts if after < fact.sequence <= last]

    async def _whole(self, filters: Sequence[str], start: int) -> list[Fact | BadFact]:
        """All facts of ``filters``: at least as many of each as the leader counts."""
        for wait_s in WHOLE_WAITS_S:
            await asyncio.sleep(wait_s)
            counts = [await self._count(each) for each in filters]
            found = [await self._reader.facts(each, start) for each in filters]
            if all(len(part) >= count for part, count in zip(found, counts, strict=True)):
                return sorted(chain.from_iterable(found), key=lambda fact: fact.sequence)
        raise LogUnavailable(f"the replicas that answer do not have all of {filters[0]}")

    async def _count(self, subject: str) -> int:
        """How many messages the leader has on ``subject`` (a filter); 0 where none can lag."""
        if self._leadership.alone:
            return 0
        info = await self._info(msgspec.json.encode({"subjects_filter": subject}))
        return sum((info.state.subjects or {}).values())

    async def first_of(self, plan_id: str) -> Fact | BadFact | None:
        """See `streams.log.Log.first_of`."""
        return await self._reader.leader_first(subject_of(plan_id))

    async def last_of(self, plan_id: str) -> Fact | BadFact | None:
        """See `streams.log.Log.last_of`."""
        return await self._reader.leader_last(subject_of(plan_id))

    async def scan(
        self, after: int, limit: int, plan_id: str | None = None
    ) -> list[Fact | BadFact]:
        """See `streams.log.Log.scan`."""
        if plan_id is None:
            return await self._reader.scan([ALL_PLANS], after, limit)
        return await self._reader.scan([subject_of(plan_id), tasks_of(plan_id)], after, limit)

    def wrote(self, event_id: str) -> bool:
        """See `streams.log.Log.wrote`."""
        return self._appender.wrote(event_id)

    async def state(self) -> LogState:
        """See `streams.log.Log.state`."""
        info = await self._info()
        return LogState(
            stream=PLANS_STREAM,
            first=info.state.first_seq,
            head=info.state.last_seq,
            size_bytes=info.state.bytes,
            epoch=epoch_of(PLANS_STREAM, info),
            at=seconds_of(info.ts.encode()),
        )

    async def settled(self, known: int = 0, within_s: float = SETTLE_S) -> LogState:
        """The extent of a log that is known to have reached ``known``, once that is certain.

        Raises LogUnavailable when it is not certain after ``within_s``, and LogReset.
        """
        self._leadership.names(known)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(LogUnavailable),
            wait=wait_random_exponential(multiplier=0.1, max=0.5),
            stop=stop_after_delay(within_s),
            reraise=True,
        ):
            with attempt:
                return await self.state()
        raise AssertionError("the last attempt raises")

    async def close(self) -> None:
        """See `streams.log.Log.close`."""
        await self._appender.close()
        await self._reader.close()
        await self._connection.close()

    def _on_restart(self, reason: str) -> None:
        self.new_consumers += 1
        self._follow_error = reason

    async def _position(self) -> StreamPosition:
        info = await self._info()
        return StreamPosition(epoch_of(PLANS_STREAM, info), info.state.last_seq)

    async def prove(self) -> bool:
        """Return when the leader has just proven a quorum; False when no other replica exists.

        Raises LogUnavailable, LogReset.
        """
        if self._leadership.alone:
            return False
        await self._info()
        return True

    async def prove_audit(self) -> bool:
        """`prove` for the audit trail, whose leader may be another server."""
        if self._leadership.alone:
            return False
        await proven_info(self._ask, AUDIT_STREAM)
        return True

    async def _info(self, question: bytes = b"") -> InfoAnswer:
        """How the log is, by a leader with a quorum. Raises LogReset, LogUnavailable."""
        leadership, known = self._leadership, self._leadership.named
        asked_at = time.monotonic()
        try:
            info = await info_of(
                partial(self._ask, timeout_s=API_TIMEOUT_S), PLANS_STREAM, question
            )
        except LogUnavailable as error:
            leadership.missed(str(error))
            raise
        except asyncio.CancelledError:
            if time.monotonic() - asked_at > ASKED_S:
                leadership.missed(f"no answer within {ASKED_S:g} s")
            raise
        leadership.judge(info, known)
        return info

    async def _ask(self, subject: str, body: bytes, timeout_s: float = SETUP_TIMEOUT_S) -> bytes:
        reply = await self._connection.request(f"$JS.API.{subject}", body, timeout_s=timeout_s)
        return reply.payload
