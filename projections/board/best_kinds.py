"""The kinds of one lane in the order of their best tasks, for workers that take any kind.

There may be thousands of kinds, so a kind is looked at again only after something about it changed.
"""

import heapq
from collections.abc import Iterator, Mapping
from itertools import count

from projections.board.turns import KindQueue, Rank, Seat

_SLACK = 64  # how many dead entries are not worth clearing out


class BestKinds:
    """Follows the queues of one lane.

    A kind of which tasks came, left or had their turn has to be added to ``changed``.
    """

    def __init__(self, queues: Mapping[str, KindQueue]) -> None:
        self._queues = queues
        self.changed: set[str] = set()
        self._order = count()
        self._entries: dict[str, int] = {}  # of each kind the one entry that counts
        self._heap: list[tuple[Rank, int, str]] = []

    def best_first(self, now: float) -> Iterator[Seat]:
        """Take seats of any kind, best first."""
        while self.changed:
            self._look_at(self.changed.pop())
        while self._heap:
            _, entry, kind = self._heap[0]
            first = self._queues[kind].first() if self._entries.get(kind) == entry else None
            if first is None:
                heapq.heappop(self._heap)
                continue
            seat = first[1]
            self._queues[kind].take(seat, now)
            heapq.heappop(self._heap)
            self._look_at(kind)
            yield seat

    def _look_at(self, kind: str) -> None:
        queue = self._queues.get(kind)
        first = None if queue is None else queue.first()
        if first is None:
            self._entries.pop(kind, None)
            return
        self._entries[kind] = entry = next(self._order)
        heapq.heappush(self._heap, (first[0], entry, kind))
        if len(self._heap) > 2 * len(self._entries) + _SLACK:
            self._heap = [each for each in self._heap if self._entries.get(each[2]) == each[1]]
            heapq.heapify(self._heap)
