"""A part of a run of events as one client wants it: texts up to a size, and how far they lead."""

from bisect import bisect_right
from collections.abc import Callable, Sequence

import msgspec

from projections.feed.entry import FeedEntry, Interest
from projections.feed.limits import FeedLimits


class Cut(msgspec.Struct, frozen=True, gc=False):
    """The texts of a part, and the sequence it reaches."""

    texts: list[bytes]
    reached: int


def cut(
    entries: Sequence[FeedEntry],
    start: int,
    interest: Interest,
    end: int,
    limits: FeedLimits,
    on_skim: Callable[[FeedEntry], None] | None = None,
) -> Cut:
    """What ``interest`` wants of ``entries[start:]``, up to ``limits.run_bytes`` of text.

    At most ``limits.scanned_events`` are looked at. ``end`` is the sequence that the whole run
    covers; ``on_skim`` sees every entry passed.
    """
    texts: list[bytes] = []
    size = 0
    wants, max_bytes = interest.wants, limits.run_bytes
    stop = min(len(entries), start + limits.scanned_events)
    for place in range(start, stop):
        entry = entries[place]
        if on_skim is not None:
            on_skim(entry)
        if wants(entry):
            text = entry.text()
            if texts and len(text) >= max_bytes:  # alone, so that all its clients share its bytes
                return Cut(texts, entry.sequence - 1)
            texts.append(text)
            size += len(text)
            if size >= max_bytes:
                return Cut(texts, entry.sequence)
    return Cut(texts, end if stop == len(entries) else entries[stop - 1].sequence)


def place_after(entries: Sequence[FeedEntry], cursor: int, lo: int = 0) -> int:
    """The place of the first entry above ``cursor``."""
    return bisect_right(entries, cursor, lo=lo, key=_sequence)


def _sequence(entry: FeedEntry) -> int:
    return entry.sequence
