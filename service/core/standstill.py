"""Whether claims stand still: while one is unanswered for long, no other is sent after it.

A log without quorum leaves claims unanswered for seconds, and meanwhile each task's turn passes
from instance to instance by the clock. Every instance would claim what others have claimed already,
and lose the race when the log goes on.
"""

from collections.abc import Generator
from contextlib import contextmanager
from math import inf
from time import monotonic

UNANSWERED_S = 0.5  # half a turn: much longer than a claim takes
SETTLE_S = 0.1  # after the answer, until the claims of other instances have been folded


class Standstill:
    """The claims that are on the way to the log."""

    def __init__(self) -> None:
        self._sent_at: dict[int, float] = {}  # the oldest first
        self._sent = 0
        self._until = -inf

    @contextmanager
    def claiming(self) -> Generator[None]:
        """A claim is on the way, from here to the end of the block."""
        self._sent = number = self._sent + 1
        self._sent_at[number] = monotonic()
        try:
            yield
        finally:
            self._note()
            del self._sent_at[number]

    @property
    def unanswered_s(self) -> float:
        """For how long the oldest claim has been on the way; 0 for none."""
        return monotonic() - next(iter(self._sent_at.values())) if self._sent_at else 0.0

    @property
    def left_s(self) -> float:
        """For how many seconds no claim is to be sent, as far as is known; 0 if one may be."""
        self._note()
        return max(self._until - monotonic(), 0.0)

    def _note(self) -> None:
        if self.unanswered_s > UNANSWERED_S:
            self._until = monotonic() + SETTLE_S
