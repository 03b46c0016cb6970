"""The numbers behind one series, which any thread may move.

Those of prometheus_client take five calls of Python for each count, and a fact is counted two or
three times: here it is none.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf
from threading import Lock
from time import time

import msgspec


class Example(msgspec.Struct, frozen=True, gc=False):
    """One value that was counted, in the trace of this id, at this time."""

    trace_id: str
    value: float
    at: float


class Number:
    """A counter or a gauge; adding to ``value`` needs the ``lock``."""

    __slots__ = ("example", "lock", "value")

    def __init__(self) -> None:
        self.lock = Lock()
        self.value = 0.0
        self.example: Example | None = None


class Buckets:
    """A histogram: how many values were at most each of ``bounds``, which grow."""

    __slots__ = ("_bounds", "_counts", "_examples", "_lock", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._lock = Lock()
        self._bounds = (*bounds, inf)
        self._counts = [0] * len(self._bounds)
        self._examples: list[Example | None] = [None] * len(self._bounds)
        self.sum = 0.0

    def add(self, values: Sequence[float], trace_id: str | None) -> None:
        """Count each of ``values``; of those in one bucket the last is its example."""
        last: dict[int, float] = {}
        with self._lock:
            for value in values:
                place = bisect_left(self._bounds, value)
                self._counts[place] += 1
                self.sum += value
                last[place] = value
        if trace_id is not None:
            at = time()
            for place, value in last.items():
                self._examples[place] = Example(trace_id, value, at)

    def cumulative(self) -> Iterator[tuple[float, int, Example | None]]:
        """Each bound with how many values were at most that, and an example; infinity is last."""
        return zip(self._bounds, accumulate(self._counts), self._examples, strict=True)
