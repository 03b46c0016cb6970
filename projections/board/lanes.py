"""The order in which claimable tasks are handed out, and how free slots are shared between lanes.

Two lanes, ``ready`` and ``refining``; in each plans take turns (`projections.board.turns`).
Several instances share one log but not one board. So that they do not fight over the same head of
the queue, each prefers the tasks whose turn it is to be its own. A task's first turn goes by its
hash, and every ``TURN_S`` it is the next instance's: each instance gets its turn, even if those
before it take none. Within a turn the others may help, one after the other: the next one when
``yield_s`` of the turn are over, the last one after twice as long.
"""

import heapq
from collections.abc import Collection, Iterator
from math import inf
from zlib import crc32

import msgspec

from projections.board.best_kinds import BestKinds
from projections.board.peers import Peers
from projections.board.turns import KindQueue, Seat
from projections.board.waiting_since import WaitingSince
from streams.plan.events import Lane

YIELD_S = 0.1  # how long a task is left to the instance whose turn it is, at least
YIELD_MOST_S = 1.0  # a whole turn: while claims take that long, no instance helps
YIELD_CLAIMS = 4  # and so many times as long as claims, or facts on their way, take at present
_FADES = 0.95  # of what took long, with each claim or fact that was quicker
TURN_S = 1.0  # much longer than a claim takes, so that few claims race over the change of turns
_LOOK_PER_SLOT = 24  # of the others' tasks, per wanted one, before it helps while it has its own


class Share(msgspec.Struct, frozen=True):
    """How ``limit`` free slots are offered to the lanes in the first round."""

    ready: int
    refining: int


class SharingRule(msgspec.Struct, frozen=True, kw_only=True):
    """Settings ``executor.claim.*`` that share slots between lanes and order plans (DESIGN §5)."""

    refining_max_ratio: float = 0.3
    refining_min_per_tick: int = 1
    ready_first: bool = True
    ageing_s: float = 30.0

    def share(self, limit: int) -> Share:
        """Offer the refining lane its ratio, or its minimum if more; the ready lane the rest."""
        if limit == 1 and self.ready_first:
            return Share(1, 0)
        # Rounded first: 100 times 0.29 is 28.999… in floating point, and its floor is to be 29.
        ratio = int(round(limit * self.refining_max_ratio, 6))
        refining = max(ratio, min(self.refining_min_per_tick, limit))
        return Share(limit - refining, refining)


class Pick(msgspec.Struct, frozen=True, gc=False):
    """A seat taken for a claim; ``fallback`` when the slot was one the other lane left unused."""

    seat: Seat
    fallback: bool


class Lanes:
    """Claimable tasks by lane and kind, best first."""

    def __init__(self, rule: SharingRule, peers: Peers) -> None:
        self.rule = rule
        self.peers = peers
        self.look_again_at = inf
        self._slowest_s = 0.0  # of the claims and deliveries of late
        self._fresh: set[str] = set()
        self._queues: dict[Lane, dict[str, KindQueue]] = {"ready": {}, "refining": {}}
        self._order: tuple[Lane, Lane] = ("ready", "refining")
        if not rule.ready_first:
            self._order = ("refining", "ready")
        self._waiting = {lane: WaitingSince() for lane in self._queues}
        self._best = {lane: BestKinds(queues) for lane, queues in self._queues.items()}

    def __len__(self) -> int:
        """How many entries the lanes keep, dead ones included."""
        return sum(len(queue) for queues in self._queues.values() for queue in queues.values())

    def look_again(self, at: float) -> None:
        """At log time ``at`` something may be picked that is withheld now."""
        self.look_again_at = min(self.look_again_at, at)

    def looks_at_all(self) -> None:
        """Each kind that is waited for is picked from now, so `look_again` begins anew."""
        self.look_again_at = inf

    def took(self, seconds: float) -> None:
        """Note how long a claim took, or a fact on its way here: peers are as slow at present."""
        self._slowest_s = max(seconds, self._slowest_s * _FADES)

    @property
    def yield_s(self) -> float:
        """How long a task is left to the instance whose turn it is."""
        return min(max(YIELD_S, YIELD_CLAIMS * self._slowest_s), YIELD_MOST_S)

    def add(self, seat: Seat) -> None:
        """Put a seat in its lane."""
        kind = seat.task.spec.kind
        queues = self._queues[seat.lane]
        queue = queues.get(kind)
        if queue is None:
            queue = queues[kind] = KindQueue(self.rule.ageing_s)
        queue.add(seat)
        self._waiting[seat.lane].add(seat.since)
        self._best[seat.lane].changed.add(kind)
        self._fresh.add(kind)

    def remove(self, seat: Seat) -> None:
        """Take a seat out, reserved or not."""
        kind = seat.task.spec.kind
        queue = self._queues[seat.lane][kind]
        queue.remove(seat)
        self._waiting[seat.lane].remove(seat.since)
        self._best[seat.lane].changed.add(kind)
        if not queue.count:
            del self._queues[seat.lane][kind]

    def ahead_of(self, seat: Seat) -> int:
        """About how many tasks of its kind and lane are handed out before a seat; 0 if reserved."""
        return 0 if seat.reserved else self._queues[seat.lane][seat.task.spec.kind].ahead_of(seat)

    def count_of(self, seat: Seat) -> int:
        """How many tasks of its kind are claimable in its lane, itself included."""
        return self._queues[seat.lane][seat.task.spec.kind].count

    def take_back_turn(self, seat: Seat) -> None:
        """The plan of a seat that was given back unclaimed has not had its turn."""
        queue = self._queues[seat.lane].get(seat.task.spec.kind)
        if queue is not None:
            queue.take_back_turn(seat)
            self._best[seat.lane].changed.add(seat.task.spec.kind)

    @property
    def kinds(self) -> set[str]:
        """The kinds of which tasks are claimable, reserved ones included."""
        return self._queues["ready"].keys() | self._queues["refining"].keys()

    def take_fresh(self) -> set[str]:
        """The kinds of which a task has come since the last call."""
        fresh, self._fresh = self._fresh, set()
        return fresh

    def backlog(self, lane: Lane) -> tuple[int, float | None]:
        """How many tasks of a lane are claimable, and since when (log time) the oldest is."""
        waiting = self._waiting[lane]
        return waiting.count, waiting.oldest

    def counts(self, lane: Lane) -> Iterator[tuple[str, int, Seat]]:
        """Per kind: how many tasks are claimable, and the seat of the one that is so longest.

        The lanes may change between two kinds.
        """
        for kind, queue in list(self._queues[lane].items()):
            if (oldest := queue.oldest()) is not None:
                yield kind, queue.count, oldest

    def pick(self, limit: int, kinds: Collection[str] | None, now: float) -> list[Pick]:
        """Reserve up to ``limit`` seats of ``kinds``, shared between the lanes; best first."""
        share = self.rule.share(limit)
        picks: list[Pick] = []
        first, second = self._order
        rounds: tuple[tuple[Lane, int, bool], ...] = (
            ("ready", share.ready, False),
            ("refining", share.refining, False),
            (first, limit, True),
            (second, limit, True),
        )
        for lane, most, fallback in rounds:
            if self._queues[lane] and (n := min(most, limit - len(picks))) > 0:
                picks += [Pick(seat, fallback) for seat in self._take(lane, n, kinds, now)]
        return picks

    def _take(self, lane: Lane, n: int, kinds: Collection[str] | None, now: float) -> list[Seat]:
        """Reserve up to ``n`` seats: this instance's own first, then those its peers left lying."""
        taken: list[Seat] = []
        others: list[Seat] = []
        for seat in self._best_first(lane, kinds, now):
            ahead, _ = self._ahead(seat, now)
            (others if ahead else taken).append(seat)
            if len(taken) == n or len(others) == n * _LOOK_PER_SLOT:
                break
        # An instance takes over what peers left in an order of its own: the peer itself takes from
        # the head, and two instances that help should not pick the same task.
        for seat in sorted(others, key=self._helping_order):
            helps_at = self._helps_at(seat, now)
            if len(taken) < n and helps_at <= now:
                taken.append(seat)
                continue
            self._queues[lane][seat.task.spec.kind].put_back(seat)
            self._best[lane].changed.add(seat.task.spec.kind)
            if len(taken) < n:
                self.look_again(helps_at)
        return taken

    def _best_first(self, lane: Lane, kinds: Collection[str] | None, now: float) -> Iterator[Seat]:
        """Take seats of ``kinds``, best first."""
        queues, changed = self._queues[lane], self._best[lane].changed.add
        if kinds is None and len(queues) > 1:
            yield from self._best[lane].best_first(now)
            return
        chosen = queues.keys() if kinds is None else queues.keys() & kinds
        if len(chosen) == 1:
            (kind,) = chosen
            while (seat := queues[kind].best()) is not None:
                queues[kind].take(seat, now)
                changed(kind)
                yield seat
            return
        firsts = [
            (first[0], kind, first[1])
            for kind in chosen
            if (first := queues[kind].first()) is not None
        ]
        heapq.heapify(firsts)
        while firsts:
            _, kind, seat = firsts[0]
            queues[kind].take(seat, now)
            changed(kind)
            following = queues[kind].first()
            if following is None:
                heapq.heappop(firsts)
            else:
                heapq.heapreplace(firsts, (following[0], kind, following[1]))
            yield seat

    def _helping_order(self, seat: Seat) -> int:
        return crc32(f"{self.peers.instance_id}.{seat.plan.plan_id}.{seat.task.spec.id}".encode())

    def _helps_at(self, seat: Seat, now: float) -> float:
        """When this instance may take a task in a peer's turn: one helper after the other."""
        ahead, peers = self._ahead(seat, now)
        wait_s = self.yield_s * (1 + (ahead - 1) / peers)
        return seat.since + _turn(seat, now) * TURN_S + min(wait_s, TURN_S)

    def _ahead(self, seat: Seat, now: float) -> tuple[int, int]:
        spec = seat.task.spec
        return self.peers.ahead(spec.kind, seat.plan.plan_id, spec.id, _turn(seat, now))


def _turn(seat: Seat, now: float) -> int:
    return int((now - seat.since) / TURN_S)
