"""The last hour minute by minute: what ran, what waited, what ended, and tokens, for the page.

It listens to the fold, so it shows what all instances do; it begins when this process began.
"""

from collections import deque

import msgspec

from projections.board.board import Board
from projections.listeners import Batch
from projections.read_models.views import Moment, moment
from streams.plan.events import Completed, Failed
from streams.plan.state import Result

MINUTE_S = 60
MINUTES = 60


class Minute(msgspec.Struct, kw_only=True):
    """One minute: the most that ran and waited after a batch of facts, and what ended in it."""

    at: Moment
    running: int = 0
    waiting: int = 0
    completed: int = 0
    failed: int = 0
    tokens: int = 0


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """The present moment; ``oldest_wait_s`` is that of the task that has been claimable longest."""

    running: int
    waiting: int
    oldest_wait_s: float


class LastHour(msgspec.Struct, frozen=True, kw_only=True):
    """The minutes since this process began, at most 60, the oldest first, and this moment."""

    now: Now
    minutes: list[Minute]


class Minutes:
    """Collects the minutes of one board; on the API loop."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._minutes: deque[tuple[int, Minute]] = deque(maxlen=MINUTES)

    def folded(self, batch: Batch) -> None:
        """Count what has ended, and note what runs and waits after it."""
        for fact in batch.counted:
            event = fact.event
            if not isinstance(event, Result):
                continue
            minute = self._at(fact.at)
            minute.completed += isinstance(event, Completed)
            minute.failed += isinstance(event, Failed) and event.retry_in_s is None
            if event.token_usage is not None:
                minute.tokens += event.token_usage.total_tokens
        if batch.facts:
            self._note(batch.facts[-1].at)

    def shown(self, now: float) -> LastHour:
        """The last hour at log time ``now``."""
        self._note(now)
        first = int(now) // MINUTE_S - MINUTES
        oldest = [since for _, since in self._board.places.backlog().values() if since is not None]
        return LastHour(
            now=Now(
                running=self._board.places.running_count,
                waiting=self._board.places.claimable,
                oldest_wait_s=round(max((now - since for since in oldest), default=0.0), 3),
            ),
            minutes=[minute for number, minute in self._minutes if number > first],
        )

    def _note(self, at: float) -> None:
        minute = self._at(at)
        minute.running = max(minute.running, self._board.places.running_count)
        minute.waiting = max(minute.waiting, self._board.places.claimable)

    def _at(self, at: float) -> Minute:
        """The minute of a log time; one that is over gets what comes late."""
        number = int(at) // MINUTE_S
        if not self._minutes or self._minutes[-1][0] < number:
            self._minutes.append((number, Minute(at=moment(number * MINUTE_S))))
        return self._minutes[-1][1]
