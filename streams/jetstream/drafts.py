"""The drafts that wait for the log or are on their way to it, and the outcome of each.

At most one draft of a subject is on its way. Others of the same subject stand behind it, and are
answered from its outcome when that alone decides them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from streams.jetstream.transport import Message
from streams.log import Appended, Conflict, LogFull, LogUnavailable, TooLarge

BATCH_MESSAGES = 1_000  # the server's limit
BATCH_BYTES = 4 * 1024 * 1024

AppendOutcome = Appended | Conflict


class Observer(Protocol):
    """What happens to appends, in verbs."""

    def appended(self, count: int, batch_size: int, duration_s: float) -> None:
        """``count`` facts were written in ``duration_s``, sent ``batch_size`` at a time."""
        ...

    def append_failed(self, kind: str) -> None:
        """A draft failed: ``unavailable``, ``full``, ``too_large`` or ``crowded``."""
        ...

    def conflicted(self) -> None:
        """A draft lost its race."""
        ...


class Unobserved:
    """Ignores every event."""

    def appended(self, count: int, batch_size: int, duration_s: float) -> None:
        """See `Observer`."""

    def append_failed(self, kind: str) -> None:
        """See `Observer`."""

    def conflicted(self) -> None:
        """See `Observer`."""


class AppenderLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much: budgets in seconds, ``max_waiting`` in drafts and in bytes.

    ``try_s`` bounds one attempt, ``budget_s`` a draft whose outcome is unknown, ``grace_s`` one
    that was never sent because the log is not there.
    """

    budget_s: float = 10.0
    try_s: float = 2.0
    grace_s: float = 2.0
    max_waiting: int = 20_000
    max_waiting_bytes: int = 128 * 1024 * 1024
    chatter_ttl_s: int = 86_400


DEFAULT_LIMITS = AppenderLimits()


class Ticket(msgspec.Struct, eq=False):
    """One draft on its way through the appender; ``size`` is that of all messages, in bytes."""

    subject: str
    expected: int
    event_id: str
    messages: list[Message]
    size: int
    outcome: asyncio.Future[AppendOutcome]
    came_at: float = msgspec.field(default_factory=time.monotonic)
    doubtful: bool = False  # whether an earlier attempt may have been stored, or may yet be
    sifted: int = 0
    tries: int = 0  # alone


class Drafts:
    """Every draft without an outcome, in the order they came; ``on_waiting`` is called for news."""

    def __init__(
        self, limits: AppenderLimits, observer: Observer, on_waiting: Callable[[], None]
    ) -> None:
        self._limits = limits
        self._observer = observer
        self._on_waiting = on_waiting
        self._waiting: deque[Ticket] = deque()
        # Subjects with a draft in `_waiting` or on its way, and the drafts that stand behind it.
        self._behind: dict[str, deque[Ticket] | None] = {}
        self._live: dict[Ticket, None] = {}  # in the order in which they came
        self._live_bytes = 0

    @property
    def waiting(self) -> int:
        """How many can be sent now."""
        return len(self._waiting)

    @property
    def waiting_s(self) -> float:
        """For how many seconds the oldest draft has waited for its outcome; 0 for none."""
        oldest = next(iter(self._live), None)
        return 0.0 if oldest is None else time.monotonic() - oldest.came_at

    def admit(self, ticket: Ticket) -> None:
        """Let a draft wait for its turn. Raises LogUnavailable when too many or too much do."""
        crowd = None
        if len(self._live) >= self._limits.max_waiting:
            crowd = f"{len(self._live)} writes"
        # One draft alone always fits: the log itself bounds its size.
        elif self._live and self._live_bytes + ticket.size > self._limits.max_waiting_bytes:
            crowd = f"{self._live_bytes} bytes"
        if crowd is not None:
            self._observer.append_failed("crowded")
            raise LogUnavailable(f"{crowd} are waiting for the log already")
        self._live[ticket] = None
        self._live_bytes += ticket.size
        subject = ticket.subject
        if subject not in self._behind:
            self._behind[subject] = None
            self._waiting.append(ticket)
            self._on_waiting()
        elif (behind := self._behind[subject]) is not None:
            behind.append(ticket)
        else:
            self._behind[subject] = deque([ticket])

    def take_all(self) -> list[Ticket]:
        """All that can be sent now."""
        return self._take(len(self._waiting))

    def take_batch(self) -> list[Ticket]:
        """As many as one batch holds."""
        messages = size = count = 0
        for ticket in self._waiting:
            messages += len(ticket.messages)
            size += ticket.size
            if count and (messages > BATCH_MESSAGES or size > BATCH_BYTES):
                break
            count += 1
        return self._take(count)

    def put_back(self, lot: list[Ticket]) -> None:
        """Let these be sent next."""
        self._waiting.extendleft(reversed(lot))
        self._on_waiting()

    def close(self) -> None:
        """Answer LogUnavailable to all."""
        for ticket in self._live:
            if not ticket.outcome.done():
                ticket.outcome.set_exception(LogUnavailable("the log was closed"))

    def _take(self, count: int) -> list[Ticket]:
        # The draft of a caller that was cancelled is not sent at all.
        taken: list[Ticket] = []
        for _ in range(count):
            ticket = self._waiting.popleft()
            if ticket.outcome.cancelled():
                self._leave(ticket, None)
            else:
                taken.append(ticket)
        return taken

    # Outcomes.

    def win(self, lot: Sequence[Ticket], before: int) -> int:
        """They are stored one behind the other from ``before`` on; answers the last sequence."""
        sequence = before
        for ticket in lot:
            sequence += len(ticket.messages)
            if not ticket.outcome.done():
                ticket.outcome.set_result(Appended(sequence))
            self._leave(ticket, sequence)
        return sequence

    def win_late(self, ticket: Ticket, sequence: int) -> None:
        """One is stored after trouble, its last message at ``sequence``.

        What it took is what its caller waited, all tries together.
        """
        size = len(ticket.messages)
        self._observer.appended(size, size, time.monotonic() - ticket.came_at)
        self.win([ticket], sequence - size)

    def lose(self, ticket: Ticket, actual: int | None) -> None:
        """Another draft was first; ``actual`` is the subject's last sequence, if known."""
        self._observer.conflicted()
        if not ticket.outcome.done():
            ticket.outcome.set_result(Conflict(actual))
        self._leave(ticket, actual)

    def fail(self, ticket: Ticket, error: LogUnavailable | LogFull | TooLarge) -> None:
        """It was not stored, or that is not known."""
        kinds: dict[type[Any], str] = {LogFull: "full", TooLarge: "too_large"}
        self._observer.append_failed(kinds.get(type(error), "unavailable"))
        if not ticket.outcome.done():
            ticket.outcome.set_exception(error)
        self._leave(ticket, None)

    def _leave(self, ticket: Ticket, last: int | None) -> None:
        """Let the next draft of the subject go; ``last`` is its last sequence, if that is known."""
        behind = self._behind[ticket.subject]
        while True:
            del self._live[ticket]
            self._live_bytes -= ticket.size
            if not behind:
                del self._behind[ticket.subject]
                return
            ticket = behind.popleft()
            if last is None or ticket.expected >= last:
                self._waiting.append(ticket)
                self._on_waiting()
                return
            # It cannot win any more; the log need not be asked.
            self._observer.conflicted()
            if not ticket.outcome.done():
                ticket.outcome.set_result(Conflict(last))
