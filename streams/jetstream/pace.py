"""Says for how long drafts are held while a batch is on its way, so that more can gather.

The server writes one batch after the other, and each costs it milliseconds however small it is.
So the next batch is sent when the last one is nearly done: by then more drafts have come.
"""

MANY = 100  # drafts that are not held
SHARE = 0.7  # of the time that a batch takes, for which fewer are held after one has been sent
MOST_S = 0.008
AVERAGED = 10  # batches, about, over which their time is averaged


class BatchPace:
    """Hears of each batch; times are in seconds, on one clock."""

    def __init__(self) -> None:
        self._batch_s = 0.0  # what a batch takes, on average
        self._held_until = 0.0

    def sent(self, now: float) -> None:
        """A batch was sent."""
        self._held_until = now + min(SHARE * self._batch_s, MOST_S)

    def stored(self, took_s: float) -> None:
        """A batch was stored ``took_s`` after it had been sent."""
        self._batch_s += (took_s - self._batch_s) / AVERAGED

    def hold_s(self, waiting: int, now: float) -> float:
        """For how many seconds so many waiting drafts are held; 0 for not at all."""
        return 0.0 if waiting >= MANY else max(self._held_until - now, 0.0)
