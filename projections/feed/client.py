"""One open event stream: what it follows, how far it has got, and where its bytes go."""

from typing import Literal, Protocol

import msgspec

from projections.feed.entry import FINISHED, FeedEntry, Interest, signal
from streams.log import LogState


class Gone(Exception):
    """The client is no longer there."""


class Sink(Protocol):
    """The way to one client; the HTTP side implements it."""

    @property
    def name(self) -> str:
        """Who it is, for the log: an address."""
        ...

    def write(self, data: bytes) -> bool:
        """Send ``data``; False when more waits to be sent than should. Raises Gone."""
        ...

    async def drained(self) -> None:
        """Wait until there is room again. Raises Gone."""
        ...

    def end(self, last: bytes) -> None:
        """Send ``last`` if that is still possible, and end the answer within a bounded time."""
        ...


ResumeOutcome = Literal["fresh", "complete", "gap"]
Gap = Literal["expired", "ahead_of_log", "unreadable", "forgotten"]
ClosingReason = Literal["plan_finished", "slow_consumer", "shutting_down", "unauthorized"]


class LastFact(msgspec.Struct, frozen=True, gc=False):
    """The last fact about a plan that is known: its sequence, and whether it ended the plan."""

    sequence: int
    finished: bool


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that may begin: after ``cursor``, in a log that reaches from ``first`` to ``head``.

    ``asked`` is the client's own cursor, 0 for none; ``gap`` says why it could not be honoured.
    Facts of forgotten plans may be missing up to ``forgotten``.
    """

    interest: Interest
    cursor: int
    asked: int
    first: int
    head: int
    epoch: str
    outcome: ResumeOutcome
    forgotten: int = 0
    gap: Gap | None = None
    last_fact: LastFact | None = None


class Client:
    """One open stream. ``cursor``: everything it wants up to there has been written to it."""

    def __init__(self, opening: Opening, sink: Sink) -> None:
        self.interest = opening.interest
        self.sink = sink
        self.cursor = opening.cursor
        self.head = opening.head
        self.caught_up = False
        self.open = True
        self._last_fact = opening.last_fact
        self._forgotten = opening.forgotten  # up to where it knows that facts may be missing
        self._is_warned = opening.gap == "forgotten"
        # A client without a cursor gets one at once, even on an empty log: a cut must lose nothing.
        self._last_id = -1 if opening.outcome == "fresh" else opening.asked
        if opening.gap is not None:
            # The gap moves such a cursor, perhaps back. A client that is cut off before it, or has
            # a shorter log now, would else come back with a cursor that hides the gap.
            self._last_id = max(opening.asked, opening.cursor)

    def greet(self, opening: Opening, heartbeat_s: float, retry_ms: int) -> None:
        """Say hello, and what cannot be honoured. Raises Gone."""
        self.sink.write(
            b"retry: %d\n" % retry_ms
            + self._signal(
                "hello",
                {
                    "epoch": opening.epoch,
                    "head": opening.head,
                    "first": opening.first,
                    "heartbeat_s": heartbeat_s,
                },
            )
        )
        if opening.gap is not None:
            self._last_id = -1
            self._tell_gap(opening.asked, opening.first, opening.head, opening.gap)

    def skip_lost(self, state: LogState) -> None:
        """Say that the next events have left the log, and go on where it begins. Raises Gone."""
        requested, self.cursor = self.cursor, state.first - 1
        if self.cursor <= state.forgotten:
            self.warn_of_forgotten(requested, state)
        else:
            self._tell_gap(requested, state.first, state.head, "expired")

    def warn_of_forgotten(self, requested: int, state: LogState) -> None:
        """Say once that events after ``requested`` may be missing by now. Raises Gone."""
        if not self._is_warned and state.forgotten > max(requested, self._forgotten):
            self._is_warned = True
            self._tell_gap(requested, state.first, state.head, "forgotten")

    def _tell_gap(self, requested: int, first: int, head: int, reason: Gap) -> None:
        content: dict[str, object] = {
            "requested": requested,
            "first": first,
            "head": head,
            "reason": reason,
        }
        self.sink.write(self._signal("gap", content))

    def write(self, texts: list[bytes], reached: int) -> bool:
        """Send events that lead up to ``reached``; False when the client lags. Raises Gone."""
        self.cursor = reached
        if not texts:
            return True
        return self.write_shared(b"".join(texts), reached)

    def write_shared(self, data: bytes, reached: int) -> bool:
        """`write` for bytes that are the same for many clients."""
        self.cursor = self._last_id = reached
        return self.sink.write(data)

    def tell_caught_up(self) -> None:
        """Say once that all that was in the log at the start has been sent. Raises Gone."""
        if not self.caught_up and self.cursor >= self.head:
            self.caught_up = True
            self.sink.write(self._signal("caught_up", {"sequence": self.cursor}))

    def end(self, reason: ClosingReason) -> None:
        """Say goodbye and end the answer; saying it twice is saying it once."""
        if self.open:
            self.open = False
            self.sink.end(self._signal("closed", {"reason": reason}))

    def skim(self, entry: FeedEntry) -> None:
        """See an event go by on the way of a plan's own stream."""
        if entry.task_id is None and entry.plan_id == self.interest.plan_id:
            self._last_fact = LastFact(entry.sequence, entry.type == FINISHED)

    def note(self, last_fact: LastFact) -> None:
        """Learn what went by in the channel; what is still to come is skimmed when it does."""
        if last_fact.sequence <= self.cursor:
            self._last_fact = last_fact

    @property
    def is_over(self) -> bool:
        """Whether the plan has ended and the client has all of it."""
        # The last fact is from the log as it was at the start, or from an event that has gone by.
        return self.cursor >= self.head and self._last_fact is not None and self._last_fact.finished

    def _signal(self, name: str, content: dict[str, object]) -> bytes:
        # What a filter left out is passed too: a client that comes back need not begin before it.
        if self.cursor <= self._last_id:
            return signal(name, content)
        self._last_id = self.cursor
        return signal(name, content, self.cursor)
