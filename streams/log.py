"""The port to the log: append at an expected sequence, read what is there, follow what comes.

Two implementations hold to one contract suite (``tests/contract``): `tests.memory_log.MemoryLog`,
the reference, and `streams.jetstream.log.JetStreamLog`, the real one.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Protocol

import msgspec

from streams.plan.events import Event


class LogUnavailable(Exception):
    """The log does not answer; nothing was written, or the same append may safely be repeated."""


class LogFull(Exception):
    """The log refuses new facts because it has reached its configured size."""


class TooLarge(Exception):
    """One fact is larger than the log accepts; nothing was written."""


class Unreadable(Exception):
    """A fact could not be read back from its own bytes as it was meant; nothing was written."""


class TopologyMismatch(Exception):
    """A stream exists that Holdfast cannot rely on; the message names the field."""


class LogReset(Exception):
    """The log is not the one that was followed: made anew, emptied, or shorter than asked."""


class Origin(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who wrote a fact and under which trace; kept in message headers, and no rule looks at it.

    ``actor`` is who the writer says it is: an owner, an operator. ``principal`` is who it proved to
    be: the name of its token, or the instance itself; empty where there are no tokens.
    Only the trace of a ``submitted`` is folded: the plan keeps it, for what follows to join.
    ``tracestate`` is what vendors added to that trace.
    """

    actor: str = ""
    instance: str = ""
    principal: str = ""
    traceparent: str = ""
    tracestate: str = ""


NO_ORIGIN = Origin()


class Fact(msgspec.Struct, frozen=True, gc=False):
    """One message of the log: an event at a position and a time.

    ``sequence`` is the stream sequence; ``at`` is the stream's own timestamp in seconds since the
    epoch (the only clock that leases are judged by); ``task_id`` is None for plan facts.
    """

    sequence: int
    at: float
    plan_id: str
    task_id: str | None
    event: Event
    event_id: str = ""
    origin: Origin = NO_ORIGIN


class BadFact(msgspec.Struct, frozen=True, gc=False):
    """One message of the log that cannot be decoded: counted and stepped over, never fatal."""

    sequence: int
    at: float
    subject: str
    reason: str


class LogMessage(msgspec.Struct, frozen=True, gc=False):
    """One message of the log as it is stored, not decoded.

    ``headers`` are its header lines, ``at`` is its stream time in seconds since the epoch.
    """

    sequence: int
    at: float
    subject: str
    headers: bytes
    payload: bytes


class Draft(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What `Log.append` is asked to write: one or a few events on one subject, all or nothing.

    ``expected`` is the sequence of the last message on exactly this subject (0: none yet).
    ``chatter_ttl_s``: after how many seconds the log forgets a heartbeat or progress in it; None
    is the log's own time.
    """

    plan_id: str
    task_id: str | None
    expected: int
    events: tuple[Event, ...]
    origin: Origin = NO_ORIGIN
    chatter_ttl_s: int | None = None


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The draft is on disk; ``sequence`` is its last event's, the others precede it directly."""

    sequence: int


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """The draft lost a race: the subject's last sequence is ``actual`` (None: not known).

    ``actual`` below ``expected`` means that a short-lived message (a heartbeat) has expired.
    """

    actual: int | None


class ReplicaTrouble(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A replica of a stream that its leader does not hear (``silent``), or that lacks entries.

    It has been so for ``for_s`` seconds; ``lag`` is how many entries it lacks.
    """

    stream: str
    node: str
    silent: bool
    for_s: float
    lag: int

    def __str__(self) -> str:
        if self.silent:
            return f"the leader of {self.stream} has not heard {self.node} for {self.for_s:.0f} s"
        return f"{self.node} is {self.lag:,} entries behind {self.stream}, for {self.for_s:.0f} s"


class LogState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The log's extent: first and last sequence, bytes, and an id that a new log does not share.

    ``at`` is what the log's clock showed when it answered, in seconds since the epoch;
    ``max_bytes`` is what it may hold, None for no bound of its own. Facts of forgotten plans may be
    missing up to ``forgotten``; everything that never expires and stands above it is there.
    ``late`` are replicas that do not keep up, also those of the audit trail.
    """

    stream: str
    first: int
    head: int
    size_bytes: int
    epoch: str
    at: float
    max_bytes: int | None = None
    forgotten: int = 0
    late: tuple[ReplicaTrouble, ...] = ()


AppendError = LogUnavailable | LogFull | TooLarge | Unreadable
"""What `Log.append` raises."""


class Log(Protocol):
    """An append-only, totally ordered, durable sequence of facts."""

    def append(self, draft: Draft) -> Awaitable[Appended | Conflict]:
        """Write ``draft`` at its expected sequence; returns when it is on disk.

        Concurrent calls are group-committed. An unknown outcome is resolved by event id: exactly
        one copy lands. Raises LogUnavailable (within ``append_budget_s``), LogFull, TooLarge,
        Unreadable.
        """
        ...

    async def append_all(
        self, drafts: Sequence[Draft]
    ) -> "list[Appended | Conflict | AppendError]":
        """`append` for each at the same time, answered in order; what it raises is an answer."""
        ...

    def follow(self, after: int) -> AsyncIterator[list[Fact | BadFact]]:
        """Yield every fact with a sequence above ``after``, in order, in batches, for ever.

        Never skips or repeats; survives a lost connection by itself. Sequences may have holes
        (expired heartbeats). Ends only by being closed.
        """
        ...

    async def read(
        self, plan_id: str, task_id: str | None = None, *, after: int = 0, up_to: int | None = None
    ) -> list[Fact | BadFact]:
        """The facts of one plan (its own and its tasks'; of one task if given), in order.

        ``after`` and ``up_to`` bound the sequences. Raises LogUnavailable.
        """
        ...

    async def first_of(self, plan_id: str) -> Fact | BadFact | None:
        """The first message on the plan's own subject (its ``submitted``), or None."""
        ...

    async def last_of(self, plan_id: str) -> Fact | BadFact | None:
        """The last message on the plan's own subject, as the leader has it, or None."""
        ...

    async def scan(
        self, after: int, limit: int, plan_id: str | None = None
    ) -> list[Fact | BadFact]:
        """The next facts with a sequence above ``after``, in order: of the log, or of one plan.

        One request bounded in size: at most ``limit``, fewer when they are large. Only an empty
        answer means that nothing more was there when this was asked. Raises LogUnavailable.
        """
        ...

    async def messages(self, plan_id: str | None, after: int, limit: int) -> list[LogMessage]:
        """`scan` of one plan, or of all, as the messages are stored. Raises LogUnavailable."""
        ...

    def wrote(self, event_id: str, /) -> bool:
        """Whether the fact of this id was appended through this very object, by this process."""
        ...

    async def state(self) -> LogState:
        """The log's extent now. Raises LogUnavailable."""
        ...

    async def close(self) -> None:
        """Stop following and close the connection."""
        ...
