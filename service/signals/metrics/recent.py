"""Quantiles of what was observed in the last minute, within 3 % of the truth.

A classic histogram can only say between which two buckets a quantile lies, and buckets are few:
each costs a series per label. Here values are counted in steps of 5 %, in memory alone, and only
the quantiles become series. Other processes' quantiles cannot be added to them; a rule that needs
a share above a threshold asks the histogram's bucket.
"""

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from time import monotonic

SPAN_S = 60.0
PARTS = 6  # the oldest part is forgotten as a whole, so the span is 50 to 60 s
STEP = math.log(1.05)
SMALLEST = 1e-6  # smaller values, negative ones among them, count as zero
_ZERO = -(10**6)


class Recent:
    """Counts values and answers quantiles; any thread may observe, a lost count does no harm."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._parts: deque[tuple[float, Counter[int]]] = deque(maxlen=PARTS)

    def observe(self, *values: float) -> None:
        """Count ``values``."""
        now = self._now()
        if not self._parts or now >= self._parts[-1][0] + SPAN_S / PARTS:
            self._parts.append((now, Counter()))
        part = self._parts[-1][1]
        for value in values:
            part[_ZERO if value < SMALLEST else round(math.log(value) / STEP)] += 1

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """For each share the value that it of the recent ones does not exceed; NaN without any."""
        oldest = self._now() - SPAN_S
        counts = Counter[int]()
        for began, part in list(self._parts):
            if began >= oldest:
                counts.update(dict(part))  # a copy: other threads add steps meanwhile
        steps, reached = sorted(counts), list(accumulate(counts[step] for step in sorted(counts)))
        if not steps:
            return [math.nan] * len(shares)
        found = [steps[bisect_left(reached, share * reached[-1])] for share in shares]
        return [0.0 if step == _ZERO else math.exp(step * STEP) for step in found]
