"""Pushes each event of the log to every client that follows it: one tail, one rendering.

A client that is up to date is in the channel of its interest (`channels`). Any other client is
*behind*: newly connected, or slower than the events. It is brought forward (`forwarder`) from the
ring if that reaches back far enough (`ring`), else from the log (`replay`).

A client costs the bytes that its socket has not taken yet, and these are bounded (`limits`): a
client with too many leaves its channel, and one that then takes none for some seconds is ended. So
a client that is slow, frozen or gone costs the others nothing.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Protocol

import structlog
from msgspec.structs import replace

from projections.feed.channels import Channels
from projections.feed.client import Client, Gone, LastFact, Opening, Sink
from projections.feed.entry import PING, FeedEntry, Interest, entries_of
from projections.feed.forwarder import Forwarder
from projections.feed.limits import LIMITS, FeedLimits
from projections.feed.meter import Meter
from projections.feed.replay import Pages
from projections.feed.ring import Ring
from streams.log import BadFact, Fact, Log, LogReset, LogState
from streams.plan.events import Finished, Submitted
from streams.plan.fold import forgets

REST_RATIO = 0.5  # of a fan-out's time is left to other work before the next one
REST_MAX_S = 0.05
PING_SLOTS = 250  # pings are spread over the period, so that no moment is for pings alone
EMPTY_SLOTS = 10  # that are waited for together: each look is a turn of an idle loop
RETRY_MS = (1_000, 5_000)

log = structlog.get_logger("holdfast.sse")


class FeedSettings(Protocol):
    """The settings `sse.*`."""

    @property
    def heartbeat_s(self) -> float:
        """Seconds between two pings to a client."""
        ...

    @property
    def buffer_events(self) -> int:
        """How many events the ring holds."""
        ...

    @property
    def replay_batch_size(self) -> int:
        """How many events are read from the log at a time."""
        ...

    @property
    def max_connections(self) -> int:
        """How many streams may be open."""
        ...


class NoStream(Enum):
    """Why a stream does not begin."""

    UNKNOWN_PLAN = "there is no such plan"
    OVER = "the plan has ended and the client has all of it"
    TOO_MANY = "too many event streams are open"
    SHUTTING_DOWN = "the server is shutting down"


class Feed:
    """The event streams of one instance; lives on the API loop, driven by `run` and `publish`.

    ``now`` is log time; ``position`` the sequence after which facts will be published, and
    ``epoch`` says of which log: of another one no stream begins.
    """

    def __init__(
        self,
        settings: FeedSettings,
        source: Log,
        meter: Meter,
        now: Callable[[], float],
        *,
        position: int,
        epoch: str,
        limits: FeedLimits = LIMITS,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._source = source
        self._meter = meter
        self._now = now
        self._ring = Ring(settings.buffer_events, limits.ring_bytes, position)
        self.pages = Pages(source, settings.replay_batch_size, epoch, meter, limits)
        self._channels = Channels(self._lags, self._fail, self._sent, limits)
        self._forwarder = Forwarder(
            self._ring, self.pages, self._channels, meter, self._fail, limits
        )
        self._state = FreshState(source.state)
        self._epoch = epoch
        self._clients: dict[Client, int] = {}  # and its slot for pings
        self._slots: list[dict[Client, None]] = [{} for _ in range(PING_SLOTS)]
        self._next_slot = 0
        self._admitted = 0
        self._closing = False

    @property
    def position(self) -> int:
        """The sequence up to which facts have been published here."""
        return self._ring.position

    @property
    def admitted(self) -> int:
        """How many streams are open or about to open."""
        return self._admitted

    @property
    def connections(self) -> int:
        """How many streams are open."""
        return len(self._clients)

    def publish(self, facts: Sequence[Fact | BadFact], position: int) -> None:
        """Take in what follows the position reached; ``position`` is that of the last message seen.

        Saying it twice is saying it once.
        """
        reached = self._ring.position
        entries = entries_of(facts, reached)
        self._ring.extend(entries, max(position, reached))
        self._channels.offer(entries)
        self._forwarder.published()

    async def run(self) -> None:
        """Write to clients what is published, and ping them, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._push())
            group.create_task(self._ping())

    # -- clients come and go ----------------------------------------------------------------

    def admit(self) -> NoStream | None:
        """Count a stream that is about to open, unless none may; `discharge` it in the end."""
        if self._closing:
            return NoStream.SHUTTING_DOWN
        if self._admitted >= self._settings.max_connections:
            return NoStream.TOO_MANY
        self._admitted += 1
        return None

    def discharge(self) -> None:
        """End what `admit` began."""
        self._admitted -= 1

    async def prepare(
        self, interest: Interest, cursor: int | None, *, unreadable: bool = False
    ) -> Opening | NoStream:
        """Where a stream after ``cursor`` (None: not given) begins.

        ``unreadable``: the client brought a cursor that no instance gave out; a gap tells it so.

        Raises LogUnavailable, and LogReset when the log is not the one that is published here.
        """
        last_fact = None
        if interest.ends and interest.plan_id is not None:
            fact = await self._source.last_of(interest.plan_id)
            if fact is None or forgets(fact):
                return NoStream.UNKNOWN_PLAN
            ended = isinstance(fact, Fact) and isinstance(fact.event, Finished)
            last_fact = LastFact(fact.sequence, ended)
        state = await self._state.get()
        if cursor is not None and cursor > state.head and state.epoch == self._epoch:
            # The answer of a server that has just been cut off, or was frozen, is stale: ask again.
            await asyncio.sleep(self._limits.doubt_s)
            state = await self._state.get()
        if state.epoch != self._epoch:
            raise LogReset("the log was made anew")
        if (
            last_fact
            and last_fact.finished
            and cursor is not None
            and last_fact.sequence <= cursor <= state.head
        ):
            return NoStream.OVER
        opening = _opening(interest, cursor, state, last_fact)
        if unreadable and opening.gap is None:
            opening = replace(opening, outcome="fresh", gap="unreadable")
        return await self._skip_to_plan(opening)

    async def _skip_to_plan(self, opening: Opening) -> Opening:
        # Reading one plan walks the log, so the walk begins at the plan's first fact.
        plan_id = opening.interest.plan_id
        if plan_id is None or opening.cursor >= opening.head:
            return opening
        first = await self._source.first_of(plan_id)
        # Not when the replica that answers lags, nor when the plan's beginning has left the log:
        # then facts of its tasks may stand before the first of its own.
        if not isinstance(first, Fact) or not isinstance(first.event, Submitted):
            return opening
        start = min(first.sequence - 1, opening.head)
        return replace(opening, cursor=max(start, opening.cursor))

    def attach(self, opening: Opening, sink: Sink) -> Client:
        """Begin a stream; `leave` when its client has gone. Raises Gone."""
        client = Client(opening, sink)
        client.greet(opening, self._settings.heartbeat_s, random.randint(*RETRY_MS))  # noqa: S311
        self._meter.count("agent.sse.resume.total", outcome=opening.outcome)
        self._next_slot = (self._next_slot + 1) % PING_SLOTS
        self._clients[client] = self._next_slot
        self._slots[self._next_slot][client] = None
        self._count_connections()
        if self._closing:
            client.end("shutting_down")
        else:
            self._forwarder.start(client)
        return client

    def leave(self, client: Client) -> None:
        """Forget a client that has gone or was ended."""
        client.open = False
        self._slots[self._clients.pop(client)].pop(client)
        self._release(client)
        self._count_connections()

    def dismiss(self, client: Client) -> None:
        """End the stream of a client that may no longer read."""
        self._release(client)
        client.end("unauthorized")

    def close(self) -> None:
        """Say ``closed: shutting_down`` to every client and let in no more."""
        self._closing = True
        for client in self._clients:
            self._release(client)
            client.end("shutting_down")

    def _release(self, client: Client) -> None:
        self._channels.part(client)
        self._forwarder.stop(client)

    def _count_connections(self) -> None:
        self._meter.set("agent.sse.connections.current", len(self._clients))

    # -- pushing ----------------------------------------------------------------------------

    async def _push(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._channels.dirty.wait()
            started = clock()
            await self._channels.fan_out()
            # The more there is to write, the longer events are gathered into one write per client:
            # under load that saves system calls, and it leaves the loop to others.
            await asyncio.sleep(min((clock() - started) * REST_RATIO, REST_MAX_S))

    async def _ping(self) -> None:
        waited = 0
        while True:
            for slot in self._slots:
                waited += 1
                if slot or waited == EMPTY_SLOTS:
                    await asyncio.sleep(self._settings.heartbeat_s / PING_SLOTS * waited)
                    waited = 0
                    self._ping_all(list(slot))
                    self.pages.forget_old()

    def _ping_all(self, clients: Sequence[Client]) -> None:
        # Not in the loop above: it would hold on to the last of them until the next ping.
        for client in clients:
            self._ping_one(client)

    def _ping_one(self, client: Client) -> None:
        if client.open:
            try:
                client.sink.write(PING)
            except Gone:
                self._fail(client, "disconnected")

    def _sent(self, entries: Sequence[FeedEntry], clients: int) -> None:
        if clients:
            self._meter.count("agent.sse.push.attempt.total", len(entries) * clients)
            now = self._now()
            for entry in entries:
                self._meter.observe("agent.sse.fanout.latency", max(now - entry.at, 0.0))

    def _lags(self, client: Client) -> None:
        if client.open:
            self._forwarder.start(client)

    def _fail(self, client: Client, reason: str) -> None:
        """Give up on a client that cannot be written to."""
        self._meter.count("agent.sse.push.fail.total", reason=reason)
        # A client that hangs up while an event is on its way is normal.
        say = log.info if reason == "disconnected" else log.warning
        say("sse_push_failed", client=client.sink.name, cursor=client.cursor, reason=reason)
        self._channels.part(client)
        client.end("slow_consumer")


def _opening(
    interest: Interest, cursor: int | None, state: LogState, last_fact: LastFact | None
) -> Opening:
    oldest = min(max(state.first - 1, 0), state.head)  # everything after it is still there
    opening = Opening(
        interest=interest,
        cursor=max(cursor or 0, oldest),
        asked=cursor or 0,
        first=state.first,
        head=state.head,
        epoch=state.epoch,
        forgotten=state.forgotten,
        outcome="complete",
        last_fact=last_fact,
    )
    if cursor is None:
        return replace(opening, cursor=oldest if interest.ends else state.head, outcome="fresh")
    if cursor > state.head:
        # Another log, of which the client has seen nothing.
        return replace(opening, cursor=oldest, outcome="gap", gap="ahead_of_log")
    if 0 < cursor < oldest and oldest > state.forgotten:
        return replace(opening, outcome="gap", gap="expired")
    if 0 < cursor < state.forgotten and not interest.ends:
        # A plan's own stream needs no such warning: it is whole, or there is none. The outcome is
        # not "gap": that one raises an alert, and here the log is as it should be.
        return replace(opening, gap="forgotten")
    return opening


class FreshState:
    """The log's state as of a moment after the question, asked once for all that wait."""

    def __init__(self, ask: Callable[[], Awaitable[LogState]]) -> None:
        self._ask = ask
        self._under_way: asyncio.Task[LogState] | None = None
        self._next: asyncio.Task[LogState] | None = None

    async def get(self) -> LogState:
        """Raises LogUnavailable, LogReset."""
        # An answer to a question that was asked before may be older than this one.
        if self._next is None:
            self._next = asyncio.create_task(self._ask_after(self._under_way))
        return await asyncio.shield(self._next)

    async def _ask_after(self, previous: "asyncio.Task[LogState] | None") -> LogState:
        if previous is not None:
            await asyncio.wait([previous])
        self._under_way, self._next = self._next, None
        return await self._ask()
