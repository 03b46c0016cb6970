"""What becomes due at a log time: retry delays and leases, soonest first."""

import heapq
from collections.abc import Iterator
from itertools import count
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")


class Timers(Generic[T]):
    """A heap of things by due time (seconds, log time). Entries are never removed early.

    Whoever takes a due thing looks again at whether it still matters, so renewing a lease costs
    nothing here: the old entry fires, sees the later deadline and is set anew.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, due: float, thing: T) -> None:
        """Have ``thing`` come out of `take` once ``due`` has passed."""
        heapq.heappush(self._heap, (due, next(self._order), thing))

    def next_due(self) -> float:
        """When the soonest entry is due; infinity when there is none."""
        return self._heap[0][0] if self._heap else inf

    def take(self, now: float) -> Iterator[T]:
        """Take out everything that is due at ``now``."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]
