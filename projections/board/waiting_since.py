"""How many tasks of a lane are claimable and since when the oldest is: counted, not walked."""

import heapq
from collections import Counter

_SLACK = 64  # how many dead entries are not worth clearing out


class WaitingSince:
    """The times (log time) at which the tasks of a lane became claimable, and no task itself."""

    __slots__ = ("_heap", "_live", "count")

    def __init__(self) -> None:
        self.count = 0
        self._live: Counter[float] = Counter()
        self._heap: list[float] = []

    def add(self, since: float) -> None:
        """Count one more."""
        self.count += 1
        if since not in self._live:
            heapq.heappush(self._heap, since)
        self._live[since] += 1

    def remove(self, since: float) -> None:
        """Count one less."""
        self.count -= 1
        self._live[since] -= 1
        if not self._live[since]:
            del self._live[since]
            if len(self._heap) > 2 * len(self._live) + _SLACK:
                self._heap = list(self._live)
                heapq.heapify(self._heap)

    @property
    def oldest(self) -> float | None:
        """Since when the one that has been claimable longest is so."""
        while self._heap and self._heap[0] not in self._live:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None
