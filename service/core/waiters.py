"""Claims that wait for work, by kind: a new task concerns only those that wait for its kind."""

import asyncio
from collections.abc import Collection
from itertools import count

import msgspec

from projections.board.lanes import Pick
from service.core.answers import ClaimRequest


class Waiter(msgspec.Struct, eq=False):
    """One request that found nothing yet; ``ticket`` grows with each."""

    request: ClaimRequest
    kinds: Collection[str | None]
    ticket: int
    future: asyncio.Future[list[Pick]]

    def serve(self, picks: list[Pick]) -> None:
        """End its wait with ``picks``, unless it has ended."""
        if not self.future.done():
            self.future.set_result(picks)

    @property
    def picks(self) -> list[Pick]:
        """What it was served, if it was."""
        served = self.future.done() and not self.future.cancelled()
        return self.future.result() if served else []


class Waiters:
    """Requests in the order they came. The kind None stands for those who take any kind."""

    def __init__(self) -> None:
        self._tickets = count()
        self._all: dict[int, Waiter] = {}
        self._by_kind: dict[str | None, dict[int, Waiter]] = {}

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._all)

    def add(self, request: ClaimRequest) -> Waiter:
        """Let ``request`` wait."""
        kinds = (None,) if request.kinds is None else dict.fromkeys(request.kinds)
        future: asyncio.Future[list[Pick]] = asyncio.get_running_loop().create_future()
        waiter = Waiter(request, kinds, next(self._tickets), future)
        self._all[waiter.ticket] = waiter
        for kind in kinds:
            self._by_kind.setdefault(kind, {})[waiter.ticket] = waiter
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """It waits no longer; nothing happens when it did not."""
        if self._all.pop(waiter.ticket, None) is None:
            return
        for kind in waiter.kinds:
            waiting = self._by_kind[kind]
            del waiting[waiter.ticket]
            if not waiting:
                del self._by_kind[kind]

    def of(self, kinds: Collection[str]) -> list[Waiter]:
        """Those that would take a task of one of ``kinds``, in the order they came."""
        few, many = sorted((kinds, self._by_kind.keys()), key=len)
        found = dict(self._by_kind.get(None, {})) if kinds else {}
        for kind in few:
            if kind in many:
                found |= self._by_kind[kind]
        return [found[ticket] for ticket in sorted(found)]

    def of_owner(self, owner: str) -> list[Waiter]:
        """The requests of one owner."""
        return [waiter for waiter in self._all.values() if waiter.request.owner == owner]

    def waits_for(self, kind: str) -> bool:
        """Whether a waiting claim would take a task of ``kind``."""
        return self._has(kind) or self._has(None)

    def _has(self, kind: str | None) -> bool:
        return kind in self._by_kind

    def clear(self) -> list[Waiter]:
        """Remove and return all that wait."""
        waiting = list(self._all.values())
        self._all.clear()
        self._by_kind.clear()
        return waiting
