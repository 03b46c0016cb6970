"""Writers that wait until the fold has reached what they wrote."""

import asyncio
from collections.abc import Mapping
from heapq import heappop, heappush

FOLD_WAIT_S = 5.0
OVERDUE_LOOK_S = 0.5  # how often those that wait so long are looked through

Ignored = str | None
"""Why the fold ignored a fact; None when it counts."""


class FoldWaiters:
    """Futures by the sequence that they wait for; lives on the loop of the fold."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[asyncio.Future[Ignored]]] = {}
        self._sequences: list[int] = []  # of those that wait: a heap, the lowest first
        self._overdue_at: dict[asyncio.Future[Ignored], float] = {}  # by the loop's clock
        self._timer: asyncio.TimerHandle | None = None

    def until_folded(self, sequence: int) -> asyncio.Future[Ignored]:
        """Is done when ``sequence``, which is not folded yet, is; TimeoutError: not in time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ignored] = loop.create_future()
        if sequence not in self._waiting:
            self._waiting[sequence] = []
            heappush(self._sequences, sequence)
        self._waiting[sequence].append(future)
        self._overdue_at[future] = loop.time() + FOLD_WAIT_S
        if self._timer is None:
            self._watch_overdue()
        return future

    def reached(self, position: int, ignored: Mapping[int, str]) -> None:
        """Everything up to ``position`` is folded, also where no fact stands (any more)."""
        while self._sequences and self._sequences[0] <= position:
            sequence = heappop(self._sequences)
            for future in self._waiting.pop(sequence):
                if not future.done():
                    future.set_result(ignored.get(sequence))

    def _watch_overdue(self) -> None:
        """One timer for all that wait: one for each would cost more."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(OVERDUE_LOOK_S, self._fail_overdue)

    def _fail_overdue(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for future, at in list(self._overdue_at.items()):
            if not future.done() and at <= now:
                future.set_exception(TimeoutError())
            if future.done():
                del self._overdue_at[future]
        if self._overdue_at:
            self._watch_overdue()
