"""When a worker last asked for each kind: it shows kinds without a worker.

Kinds come from requests, so their number is bounded: the one asked for longest ago is forgotten.
"""

from collections import OrderedDict
from collections.abc import Collection

MOST_KINDS = 10_000
NOT_ASKED_S = 10.0  # a worker with a free slot asks every few seconds, or waits at the queue


class Demand:
    """Log times of the last claim request, in all and by kind."""

    def __init__(self, most_kinds: int = MOST_KINDS) -> None:
        self._most_kinds = most_kinds
        self._any_kind: float | None = None
        self._by_kind: OrderedDict[str, float] = OrderedDict()

    def asked(self, kinds: Collection[str] | None, now: float) -> None:
        """A worker asks for ``kinds`` (None: any) at log time ``now``."""
        if kinds is None:
            self._any_kind = now
            return
        for kind in kinds:
            self._by_kind[kind] = now
            self._by_kind.move_to_end(kind)
        while len(self._by_kind) > self._most_kinds:
            self._by_kind.popitem(last=False)

    def last_asked(self, kind: str) -> float | None:
        """When a worker last asked for tasks of ``kind``, by name or as any; None: not known."""
        times = [at for at in (self._any_kind, self._by_kind.get(kind)) if at is not None]
        return max(times, default=None)

    def kinds(self) -> list[str]:
        """The kinds asked for by name, the one asked for last at the end."""
        return list(self._by_kind)
