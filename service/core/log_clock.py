"""Log time as far as this process can tell, and the log's clock with its steps.

Leases are judged by the log's timestamps. "Now" is the process's monotonic clock plus the largest
offset observed between the two. Every observation arrives late, never early, so the result lags
the log's clock by the quickest delivery seen and cannot run ahead: an instance whose wall clock is
minutes wrong, or is set back, still reclaims no lease early (DESIGN §3).

The log server's clock may step as well. Log time (`now`) never goes back, so what is claimable
stays claimable. The log's own clock (`stream_now`) follows a step both ways: a claim counts only
if the lease is over by that clock, and lasts as long as it was granted for (`board.places.leases`).
"""

import time
from collections.abc import Callable, Sequence

STEP_S = 0.5  # a difference that no delivery explains
LATELY_S = 600.0

# Called with the seconds by which the log's clock was set forward, or back (negative).
OnStep = Callable[[float], None]


class LogClock:
    """Tells log time, in seconds since the epoch, from the timestamps it is shown."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        on_step: OnStep | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.monotonic = monotonic
        self._wall = wall
        self.wall_ahead_s = 0.0
        """By how much this machine's clock was ahead of the log's at its last answer."""
        self.on_step = on_step
        self._offset: float | None = None  # of log time, never lowered
        self._stream_offset = float("-inf")
        self._last_fact_at = float("-inf")
        # Between these two the offset lay when the log answered last.
        self._least, self._most = float("-inf"), float("inf")
        self._stepped_by_s, self._stepped_at = 0.0, float("-inf")

    @property
    def is_set(self) -> bool:
        """Whether the log's clock has been seen at all."""
        return self._offset is not None

    def observe(self, at: float) -> None:
        """Take in a timestamp that the log's clock showed at this moment or before."""
        offset = at - self.monotonic()
        self._stream_offset = max(offset, self._stream_offset)
        self._offset = offset if self._offset is None else max(offset, self._offset)

    def observe_facts(self, times: Sequence[float]) -> None:
        """Take in the timestamps of facts that arrive together, in the order of the log.

        A fact that is older than the one before it was written after a step back.
        """
        last = self._last_fact_at
        for at in times:
            if at < last:  # the clock was set back; of times that grow the last one counts
                self.observe(last)
                if at < last - STEP_S:
                    self._stream_offset = at - self.monotonic()
            last = at
        if times:
            self._last_fact_at = last
            self.observe(last)

    def observe_answer(self, at: float, asked_at: float) -> None:
        """Take in the log's time in an answer to what was asked at ``asked_at`` (monotonic)."""
        least, most = at - self.monotonic(), at - asked_at
        if least > self._most + STEP_S:
            self._stepped(least - self._most)
        elif most < self._least - STEP_S:
            self._stepped(most - self._least)
        self._least, self._most = least, most
        self.wall_ahead_s = self._wall() - at
        self.observe(at)
        self._stream_offset = min(self._stream_offset, most)

    def now(self) -> float:
        """Log time now, which never goes back; raises RuntimeError before the first observation."""
        if self._offset is None:
            raise RuntimeError("the log's clock has not been seen yet")
        return self.monotonic() + self._offset

    def stream_now(self) -> float:
        """What the log's clock shows now, or a little less; it may have been set back."""
        return self.monotonic() + self._stream_offset

    @property
    def stepped_lately_s(self) -> float:
        """By how much the log's clock was set in the last `LATELY_S`: back is negative, 0 not."""
        lately = self.monotonic() - self._stepped_at < LATELY_S
        return self._stepped_by_s if lately else 0.0

    def _stepped(self, by_s: float) -> None:
        self._stepped_by_s, self._stepped_at = by_s, self.monotonic()
        if self.on_step is not None:
            self.on_step(by_s)
