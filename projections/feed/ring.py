"""The newest events of the log, in memory: what live clients are served from."""

from collections.abc import Callable, Sequence

from projections.feed.cuts import Cut, cut, place_after
from projections.feed.entry import FeedEntry, Interest
from projections.feed.limits import FeedLimits

_COMPACT_AT = 1_024


class Ring:
    """Every event above ``floor`` up to ``position``; bounded in events and in bytes.

    Both are log sequences; messages that are no events (unreadable ones) count as passed. In the
    beginning both are where the tail begins.
    """

    def __init__(self, max_events: int, max_bytes: int, position: int) -> None:
        self.position = self._floor = position
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._entries: list[FeedEntry] = []
        self._start = 0  # entries before it have left
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries) - self._start

    def covers(self, cursor: int) -> bool:
        """Whether everything from ``cursor`` to ``position`` is here."""
        return self._floor <= cursor <= self.position

    def extend(self, entries: Sequence[FeedEntry], position: int) -> None:
        """Take in everything that follows what is here, up to ``position``."""
        self._entries += entries
        self._size_bytes += sum([entry.weight for entry in entries])
        self.position = position
        if (excess := len(self) - self._max_events) > 0:
            self._drop_oldest(excess)
        while self._size_bytes > self._max_bytes:
            self._drop_oldest(1)
        if self._start > _COMPACT_AT and self._start * 2 > len(self._entries):
            del self._entries[: self._start]
            self._start = 0

    def _drop_oldest(self, number: int) -> None:
        end = self._start + number
        oldest = self._entries[self._start : end]
        self._floor = oldest[-1].sequence
        self._size_bytes -= sum([entry.weight for entry in oldest])
        # The slots stay until the list is compacted; what they held must not.
        self._entries[self._start : end] = [_GONE] * number
        self._start = end

    def after(
        self,
        cursor: int,
        interest: Interest,
        limits: FeedLimits,
        on_skim: Callable[[FeedEntry], None] | None = None,
    ) -> Cut:
        """What ``interest`` wants next after ``cursor``; only where the ring `covers` it."""
        place = place_after(self._entries, cursor, self._start)
        return cut(self._entries, place, interest, self.position, limits, on_skim)


_GONE = FeedEntry(0, "", None, "", 0, 0.0, None)
