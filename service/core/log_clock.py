"""Log time as far as this process can tell: never ahead of the log's own clock.

Leases are judged by the log's timestamps. "Now" is the process's monotonic clock plus the largest
offset observed lately between the two. Every observation arrives late, never early, so the result
lags the log's clock by the quickest delivery seen and cannot run ahead: an instance whose wall
clock is minutes wrong, or is set back, still reclaims no lease early (DESIGN §3).
"""

import time
from collections.abc import Callable

WINDOW_S = 60.0


class LogClock:
    """Tells log time, in seconds since the epoch, from the timestamps it is shown."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._started = monotonic()
        self._offset: float | None = None
        self._current = self._previous = float("-inf")

    @property
    def is_set(self) -> bool:
        """Whether the log's clock has been seen at all."""
        return self._offset is not None

    def observe(self, at: float) -> None:
        """Take in a timestamp that the log's clock showed at this moment or before."""
        local = self._monotonic()
        if local - self._started > WINDOW_S:
            # Two windows, so that a log whose clock was set back is believed within two minutes.
            self._started = local
            self._previous, self._current = self._current, float("-inf")
        offset = at - local
        if offset > self._current:
            self._current = offset
            self._offset = max(self._current, self._previous)

    def now(self) -> float:
        """Log time now; raises RuntimeError before the first observation."""
        if self._offset is None:
            raise RuntimeError("the log's clock has not been seen yet")
        return self._monotonic() + self._offset
