"""A part of a run of events as one client wants it: texts up to a size, and how far they lead."""

from bisect import bisect_right
from collections.abc import Callable, Sequence

import msgspec

from projections.feed.entry import Entry, Interest

MAX_SCANNED = 1_000  # events looked at for one part, whether they are wanted or not


class Cut(msgspec.Struct, frozen=True, gc=False):
    """The texts of a part, and the sequence it reaches."""

    texts: list[bytes]
    reached: int


def cut(
    entries: Sequence[Entry],
    start: int,
    interest: Interest,
    end: int,
    max_bytes: int,
    on_skim: Callable[[Entry], None] | None = None,
) -> Cut:
    """What ``interest`` wants of ``entries[start:]``, up to ``max_bytes`` or `MAX_SCANNED` entries.

    ``end`` is the sequence that the whole run covers; ``on_skim`` sees every entry passed.
    """
    texts: list[bytes] = []
    size = 0
    wants = interest.wants
    stop = min(len(entries), start + MAX_SCANNED)
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


def place_after(entries: Sequence[Entry], cursor: int, lo: int = 0) -> int:
    """The place of the first entry above ``cursor``."""
    return bisect_right(entries, cursor, lo=lo, key=_sequence)


def _sequence(entry: Entry) -> int:
    return entry.sequence
