"""The real log: Holdfast's facts in NATS JetStream.

A façade: writing is `publisher` and `group_commit`, reading `reader` and `tail`, and `leadership`
says which answers may be believed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from math import inf

import msgspec
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from streams.jetstream.access import URL_ALONE, Credentials
from streams.jetstream.audit_stream import Trail
from streams.jetstream.bounds import UNBOUNDED, StreamBounds, account_bytes, full
from streams.jetstream.connection import Connection
from streams.jetstream.drafts import DEFAULT_LIMITS, AppenderLimits, Observer
from streams.jetstream.forgetting import forgotten_in, note_forgotten
from streams.jetstream.goodbyes import Goodbyes
from streams.jetstream.group_commit import Appender
from streams.jetstream.leadership import PATIENCE, Leadership, Patience, proven_info
from streams.jetstream.plan_reads import PlanReads
from streams.jetstream.publisher import JetStreamTransport
from streams.jetstream.reader import Reader, seconds_of
from streams.jetstream.replicas import Replicas
from streams.jetstream.search import Search
from streams.jetstream.tail import Follower, StreamPosition
from streams.jetstream.topology import (
    Config,
    InfoAnswer,
    ensure_stream,
    epoch_of,
    info_of,
    plans_stream,
)
from streams.log import (
    BadFact,
    Fact,
    LogMessage,
    LogState,
    LogUnavailable,
)
from streams.subjects import ALL_PLANS, subject_of

API_TIMEOUT_S = 2.0
SETTLE_S = 30.0  # longer than elections and doubts take
ASKED_S = 0.5  # a caller that gave up after less proves nothing about the log
SETUP_TIMEOUT_S = 5.0


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
        self._search = Search(
            connection,
            here=self._info,
            there=self._led_at,
            is_in_doubt=lambda: self.uncertain is not None,
            patience=patience,
        )
        self._leadership = Leadership(self._search.begin, patience)
        self._replicas = Replicas()
        self._patience = patience
        self._tail: Follower | None = None
        names = connection.names
        self._stream, self._audit_stream = names.plans_stream, names.audit_stream
        self._reader = Reader(connection, self._stream, self.prove, patience)
        self._plans = PlanReads(self._reader, self._count, patience)
        self._max_bytes: int | None = None  # as last seen
        transport = JetStreamTransport(
            connection,
            self._reader,
            on_named=self._leadership.names,
            why_full=lambda reason: full(reason, self._stream, self._max_bytes),
        )
        self._appender = Appender(transport, limits=limits, observer=observer)
        # See `streams.log.Log`.
        self.append = self._appender.append
        self.append_all = self._appender.append_all
        self.wrote = self._appender.wrote
        audit = Reader(connection, self._audit_stream, self.prove_audit, patience)
        audit_transport = JetStreamTransport(connection, audit)
        self.trail = Trail(audit, audit_transport, self._ask, replicas, names, self._replicas)
        self.goodbyes = Goodbyes(connection)
        self._follow_error: str | None = None
        self.new_consumers = 0  # how often a tail had to start anew

    @classmethod
    async def connect(  # noqa: PLR0913 - one for each thing that tests or settings choose
        cls,
        url: str,
        *,
        replicas: int = 1,
        bounds: StreamBounds = UNBOUNDED,
        limits: AppenderLimits = DEFAULT_LIMITS,
        connect_timeout_s: float = 10.0,
        name: str = "holdfast",
        observer: Observer | None = None,
        patience: Patience = PATIENCE,
        access: Credentials = URL_ALONE,
    ) -> "JetStreamLog":
        """Connect, and make or check the streams.

        Raises LogUnavailable when within ``connect_timeout_s`` there is no server, or no leader
        with a quorum; and TopologyMismatch when a stream exists that Holdfast cannot rely on.
        ``url`` may name several servers of a cluster, separated by commas.
        """
        deadline = time.monotonic() + connect_timeout_s
        connection = await Connection.open(
            url, name=name, timeout_s=connect_timeout_s, access=access
        )
        log = cls(
            connection,
            limits=limits,
            observer=observer,
            replicas=replicas,
            patience=patience,
        )
        try:
            wanted = plans_stream(access.names, replicas=replicas)
            await log._ensure(wanted, bounds, deadline)
        except BaseException:
            await log.close()
            raise
        return log

    async def _ensure(self, wanted: Config, bounds: StreamBounds, deadline: float) -> None:
        """Make or check the streams; a cluster that is just forming refuses that for a while."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(LogUnavailable),
            wait=wait_random_exponential(multiplier=0.1, max=1),
            stop=lambda _: time.monotonic() >= deadline,
            reraise=True,
        ):
            with attempt:
                try:
                    most = await account_bytes(self._ask, bounds, wanted["num_replicas"])
                    await ensure_stream(self._ask, wanted, bound=bounds.plans(most))
                except LogUnavailable as error:
                    self._leadership.missed(str(error))
                    raise
                await self.trail.ensure(bounds.audit(most))
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
    def takes_anyone(self) -> bool:
        """Whether the server lets clients in that prove nothing."""
        return self._connection.takes_anyone

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and came back."""
        return self._connection.reconnects

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change`` at every loss and return of the server; returns how to stop it."""
        return self._connection.watch(on_change)

    async def follow(self, after: int) -> AsyncIterator[list[Fact | BadFact]]:
        """See `streams.log.Log.follow`."""
        self._leadership.names(after)
        follower = self._tail = Follower(
            self._connection,
            self._stream,
            after,
            position_of=self._position,
            read_after=self.scan,
            named=lambda: self._leadership.named,
            on_restart=self._on_restart,
            owed_s=self._patience.owed_s,
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
        facts = await self._plans.whole(plan_id, task_id)
        last = inf if up_to is None else up_to
        return [fact for fact in facts if after < fact.sequence <= last]

    async def _count(self, subject: str) -> int:
        """How many messages the leader has on ``subject`` (a filter)."""
        info = await self._info(
            msgspec.json.encode({"subjects_filter": self._connection.names.outside(subject)})
        )
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
            return await self._reader.scan(ALL_PLANS, after, limit)
        return await self._plans.facts(plan_id, after, limit)

    async def messages(self, plan_id: str | None, after: int, limit: int) -> list[LogMessage]:
        """See `streams.log.Log.messages`."""
        if plan_id is None:
            return await self._reader.stored(ALL_PLANS, after, limit)
        return await self._plans.messages(plan_id, after, limit)

    async def state(self) -> LogState:
        """See `streams.log.Log.state`."""
        info = await self._info()
        self._max_bytes = info.config.max_bytes if info.config.max_bytes > 0 else None
        return LogState(
            stream=self._stream,
            first=info.state.first_seq,
            head=info.state.last_seq,
            size_bytes=info.state.bytes,
            epoch=epoch_of(self._stream, info),
            max_bytes=self._max_bytes,
            at=seconds_of(info.ts.encode()),
            forgotten=forgotten_in(info.config.metadata),
            late=self._replicas.troubles(),
        )

    async def note_forgotten(self, up_to: int) -> None:
        """Note in the stream that facts of forgotten plans may be missing up to ``up_to``.

        It is done before any is removed. Raises LogUnavailable, LogReset.
        """
        await self._info()
        await note_forgotten(self._ask, self._stream, up_to)

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
        await self._search.close()
        await self._appender.close()
        await self._reader.close()
        await self._connection.close()

    def _on_restart(self, reason: str) -> None:
        self.new_consumers += 1
        self._follow_error = reason

    async def _position(self) -> StreamPosition:
        info = await self._info()
        return StreamPosition(epoch_of(self._stream, info), info.state.last_seq)

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
        await proven_info(self._ask, self._audit_stream)
        return True

    async def _info(self, question: bytes = b"") -> InfoAnswer:
        """How the log is, by a leader with a quorum. Raises LogReset, LogUnavailable."""
        leadership, known = self._leadership, self._leadership.named
        asked_at = time.monotonic()
        try:
            info = await info_of(
                partial(self._ask, timeout_s=API_TIMEOUT_S), self._stream, question
            )
        except LogUnavailable as error:
            leadership.missed(str(error))
            raise
        except asyncio.CancelledError:
            if time.monotonic() - asked_at > ASKED_S:
                leadership.missed(f"no answer within {ASKED_S:g} s")
            raise
        leadership.judge(info, known)
        self._replicas.seen(self._stream, info)
        return info

    async def _led_at(self, other: Connection) -> None:
        """Return when another server shows a leader that has what is known of the log.

        Raises LogReset, LogUnavailable.
        """
        info = await proven_info(partial(_ask_over, other), self._stream)
        if info.state.last_seq < self._leadership.named:
            raise LogUnavailable(f"it names sequence {info.state.last_seq}")

    async def _ask(self, subject: str, body: bytes, timeout_s: float = SETUP_TIMEOUT_S) -> bytes:
        return await _ask_over(self._connection, subject, body, timeout_s)


async def _ask_over(
    connection: Connection, subject: str, body: bytes, timeout_s: float = SETUP_TIMEOUT_S
) -> bytes:
    reply = await connection.request(connection.names.api(subject), body, timeout_s=timeout_s)
    return reply.payload
