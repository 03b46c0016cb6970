"""What becomes due at a log time: retry delays and leases, soonest first."""

import heapq
from collections.abc import Iterator
from itertools import count
from math import inf
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

_SLACK = 64  # how many dead entries are not worth clearing out


class _Timer(msgspec.Struct, Generic[T]):
    """What waits under a key; ``order`` names its one entry in the heap."""

    order: int
    queued_for: float
    due: float
    thing: T


class Timers(Generic[T]):
    """Things by key and due time (seconds, log time); a key has one due time, the last one set.

    A later due time is only noted: the old entry surfaces, sees it and is queued anew, so renewing
    a lease costs nothing here. The heap holds numbers only, so what is cancelled leaves memory.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, _Timer[T]] = {}
        self._heap: list[tuple[float, int, int]] = []
        self._order = count()

    def __len__(self) -> int:
        """How many entries are kept, dead ones included."""
        return len(self._heap)

    def set(self, key: int, due: float, thing: T) -> None:
        """Have ``thing`` come out of `take` once ``due`` has passed; it replaces what waited."""
        known = self._waiting.get(key)
        if known is not None and known.queued_for <= due:
            known.due, known.thing = due, thing
            return
        order = next(self._order)
        self._waiting[key] = _Timer(order, due, due, thing)
        heapq.heappush(self._heap, (due, order, key))
        if known is not None:  # its entry is dead now
            self._clear_out()

    def cancel(self, key: int) -> None:
        """Forget what waits under ``key``, if anything does."""
        if self._waiting.pop(key, None) is not None:
            self._clear_out()

    def next_due(self) -> float:
        """When the soonest thing is due; infinity when there is none."""
        while self._heap:
            queued_for, order, key = self._heap[0]
            timer = self._waiting.get(key)
            if timer is None or timer.order != order:
                heapq.heappop(self._heap)
            elif timer.due > queued_for:
                timer.queued_for = timer.due
                heapq.heapreplace(self._heap, (timer.due, order, key))
            else:
                return queued_for
        return inf

    def take(self, now: float) -> Iterator[T]:
        """Take out everything that is due at ``now``."""
        while self.next_due() <= now:
            _, _, key = heapq.heappop(self._heap)
            yield self._waiting.pop(key).thing

    def _clear_out(self) -> None:
        """Rebuild the heap when most of it is dead, so that the cost is spread over the deaths."""
        if len(self._heap) > 2 * len(self._waiting) + _SLACK:
            self._heap = [
                (timer.queued_for, timer.order, key) for key, timer in self._waiting.items()
            ]
            heapq.heapify(self._heap)
