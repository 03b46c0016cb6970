"""The order in which claimable tasks are handed out, and how free slots are shared between lanes.

Two lanes, ``ready`` and ``refining``, each ordered by priority (the plan's, then the task's, higher
first) and then by the time a task became claimable. Several instances share one log but not one
board; so that they do not fight over the same head of the queue, each prefers the tasks whose turn
it is to be its own, and takes another's only after that has lain there for ``YIELD_S``. A task's
first turn goes by its hash, and every ``TURN_S`` it is the next instance's: whoever wants it gets
it, even if those before it never do.
"""

import heapq
from collections.abc import Collection
from itertools import count
from math import inf
from zlib import crc32

import msgspec

from projections.board.peers import Peers
from streams.plan.events import Lane
from streams.plan.state import Plan, Task

YIELD_S = 0.1  # how long a task is left to the instance whose turn it is
TURN_S = 1.0  # much longer than a claim takes, so that few claims race over the change of turns
_SLACK = 64  # how many dead entries are not worth clearing out
_LOOK_PER_SLOT = 8  # how many of the others' tasks are looked at per wanted one


class Seat(msgspec.Struct, eq=False):
    """A task's place among the claimable; ``live`` turns false when the task leaves it.

    ``since`` is the log time at which it became claimable; ``reserved`` while a claim is under way.
    """

    plan: Plan
    task: Task
    lane: Lane
    since: float
    live: bool = True
    reserved: bool = False


class Share(msgspec.Struct, frozen=True):
    """How ``limit`` free slots are offered to the lanes in the first round."""

    ready: int
    refining: int


class SharingRule(msgspec.Struct, frozen=True, kw_only=True):
    """Settings ``executor.claim.*`` that share slots between lanes (DESIGN §5)."""

    refining_max_ratio: float = 0.3
    refining_min_per_tick: int = 1
    ready_first: bool = True

    def share(self, limit: int) -> Share:
        """Offer the refining lane its ratio, or its minimum if more; the ready lane the rest."""
        if limit == 1 and self.ready_first:
            return Share(1, 0)
        # Rounded first: 100 times 0.29 is 28.999… in floating point, and its floor is to be 29.
        ratio = int(round(limit * self.refining_max_ratio, 6))
        refining = max(ratio, min(self.refining_min_per_tick, limit))
        return Share(limit - refining, refining)


class Pick(msgspec.Struct, frozen=True):
    """A seat taken for a claim; ``fallback`` when the slot was one the other lane left unused."""

    seat: Seat
    fallback: bool


class Lanes:
    """Claimable tasks by lane and kind, best first; dead entries are dropped when they surface."""

    def __init__(self, rule: SharingRule, peers: Peers) -> None:
        self.rule = rule
        self.peers = peers
        self.look_again_at = inf
        self._order = count()
        self._size = self._dead = 0
        self._heaps: dict[Lane, dict[str, list[tuple[int, int, float, int, Seat]]]] = {
            "ready": {},
            "refining": {},
        }

    def __len__(self) -> int:
        """How many entries the lanes keep, dead ones included."""
        return self._size

    def add(self, seat: Seat) -> None:
        """Put a seat in its lane."""
        self._size += 1
        spec = seat.task.spec
        heap = self._heaps[seat.lane].setdefault(spec.kind, [])
        priority = -seat.plan.spec.priority
        heapq.heappush(heap, (priority, -spec.priority, seat.since, next(self._order), seat))

    def remove(self, seat: Seat) -> None:
        """Take a seat out: its entry dies, and is cleared out at the latest when most are dead."""
        seat.live = False
        if seat.reserved:
            return
        self._dead += 1
        if self._dead > self._size // 2 + _SLACK:
            self._clear_out()

    def _clear_out(self) -> None:
        for heaps in self._heaps.values():
            for kind, heap in list(heaps.items()):
                heap[:] = [entry for entry in heap if entry[4].live]
                heapq.heapify(heap)
                if not heap:
                    del heaps[kind]
        self._size -= self._dead
        self._dead = 0

    def pick(self, limit: int, kinds: Collection[str] | None, now: float) -> list[Pick]:
        """Reserve up to ``limit`` seats of ``kinds``, shared between the lanes; best first."""
        if self.look_again_at <= now:
            self.look_again_at = inf
        share = self.rule.share(limit)
        ready = self._take("ready", share.ready, kinds, now)
        refining = self._take("refining", share.refining, kinds, now)
        picks = [Pick(seat, fallback=False) for seat in (*ready, *refining)]
        order: tuple[Lane, Lane] = ("ready", "refining")
        for lane in order if self.rule.ready_first else reversed(order):
            left = limit - len(picks)
            picks += [Pick(seat, fallback=True) for seat in self._take(lane, left, kinds, now)]
        return picks

    def _take(self, lane: Lane, n: int, kinds: Collection[str] | None, now: float) -> list[Seat]:
        """Reserve up to ``n`` seats: this instance's own first, then those its peers left lying."""
        taken: list[Seat] = []
        others: list[Seat] = []
        while len(taken) < n and len(others) < n * _LOOK_PER_SLOT:
            seat = self._pop(lane, kinds)
            if seat is None:
                break
            (taken if self._mine(seat, now) else others).append(seat)
        # Whoever takes over what peers left lying does so in an order of its own: the owner takes
        # from the head, and two who help out should not reach for the same task.
        for seat in sorted(others, key=self._helping_order):
            if len(taken) < n and seat.since + YIELD_S <= now:
                taken.append(seat)
                continue
            self.add(seat)
            if len(taken) < n:
                self.look_again_at = min(self.look_again_at, seat.since + YIELD_S)
        for seat in taken:
            seat.reserved = True
        return taken

    def _helping_order(self, seat: Seat) -> int:
        return crc32(f"{self.peers.instance_id}.{seat.plan.plan_id}.{seat.task.spec.id}".encode())

    def _mine(self, seat: Seat, now: float) -> bool:
        turn, spec = int((now - seat.since) / TURN_S), seat.task.spec
        return self.peers.mine(spec.kind, seat.plan.plan_id, spec.id, turn)

    def _pop(self, lane: Lane, kinds: Collection[str] | None) -> Seat | None:
        """Take out the best live seat of a lane among ``kinds``."""
        heaps = self._heaps[lane]
        best: list[tuple[int, int, float, int, Seat]] | None = None
        for kind in list(heaps) if kinds is None else kinds:
            heap = heaps.get(kind)
            if heap is None:
                continue
            while heap and not heap[0][4].live:
                heapq.heappop(heap)
                self._size -= 1
                self._dead -= 1
            if not heap:
                del heaps[kind]
            elif best is None or heap[0] < best[0]:
                best = heap
        if best is None:
            return None
        self._size -= 1
        return heapq.heappop(best)[4]
