"""The tasks of one kind in one lane: plans take turns, and each plan hands out its best task.

A plan's place is the moment of its last turn, or of its becoming claimable, moved forward by its
priority: one priority is worth `TURNS_PER_PRIORITY` turns of other plans, or ``ageing_s`` seconds
of waiting. So a plan of priority 1 gets about four turns while one of priority 0 gets one, a plan
with one task does not wait for another's hundreds, and nothing waits for ever beside a steady
stream of a higher priority. Within a plan its tasks' priority counts, then the time at which a task
became claimable.
"""

import heapq
from itertools import count

import msgspec

from streams.plan.events import Lane
from streams.plan.state import Plan, Task

TURNS_PER_PRIORITY = 4
_SLACK = 64  # how many dead entries are not worth clearing out


Rank = tuple[float, int, float, int]
"""Compares the best seats of different kinds: the lowest comes first."""


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a plan stands: the lowest comes first. ``turn`` counts turns, ``at`` is a log time."""

    turn: float
    at: float


class Seat(msgspec.Struct, eq=False):
    """A task's place among the claimable; ``live`` turns false when the task leaves it.

    ``since`` is the log time at which it became claimable; ``reserved`` while a claim is under way,
    and ``before`` is then where its plan stood before this turn.
    """

    plan: Plan
    task: Task
    lane: Lane
    since: float
    live: bool = True
    reserved: bool = False
    before: Place | None = None


class _Line:
    """One plan's claimable tasks, best first."""

    __slots__ = ("entry", "live", "place", "plan", "seats")

    def __init__(self, plan: Plan, place: Place) -> None:
        self.plan = plan
        self.place = place
        self.entry = 0  # the one entry of the queue's heap that counts
        self.live = 0
        self.seats: list[tuple[int, float, int, int, Seat]] = []

    def clear_out(self) -> None:
        if len(self.seats) > 2 * self.live + _SLACK:
            self.seats = [entry for entry in self.seats if entry[-1].live]
            heapq.heapify(self.seats)


def _order_of(seat: Seat) -> tuple[int, float, int]:
    """Where a task stands in its plan: by priority, then time, then place in the plan."""
    return -seat.task.spec.priority, seat.since, seat.task.ordinal


class KindQueue:
    """The seats of one kind in one lane. ``count`` includes the reserved ones."""

    def __init__(self, ageing_s: float) -> None:
        """``ageing_s`` 0: waiting in seconds raises no priority, only waiting in turns does."""
        self.count = 0
        self._per_second = TURNS_PER_PRIORITY / ageing_s if ageing_s else 0.0
        self._turns = 0
        self._order = count(1)
        self._lines: dict[str, _Line] = {}
        self._heap: list[tuple[float, int, int, str]] = []
        self._ages: list[tuple[float, int, Seat]] = []

    def __len__(self) -> int:
        """How many entries are kept, dead ones included."""
        return sum(len(line.seats) for line in self._lines.values()) + len(self._ages)

    def oldest(self) -> Seat | None:
        """The seat whose task has been claimable longest."""
        while self._ages and not self._ages[0][2].live:
            heapq.heappop(self._ages)
        return self._ages[0][2] if self._ages else None

    def add(self, seat: Seat) -> None:
        """Put a seat at its plan's place; a plan that comes new begins to wait now."""
        self.count += 1
        heapq.heappush(self._ages, (seat.since, next(self._order), seat))
        self._join(seat, Place(self._turns, seat.since))

    def remove(self, seat: Seat) -> None:
        """Take a seat out, reserved or not."""
        seat.live = False
        self.count -= 1
        self._forget_ages()
        if not seat.reserved:
            self._leave(seat)

    def ahead_of(self, seat: Seat) -> int:
        """About how many tasks of this kind are handed out before ``seat``, as plans take turns."""
        line = self._lines[seat.plan.plan_id]
        order = _order_of(seat)
        own = sum(entry[-1].live and _order_of(entry[-1]) < order for entry in line.seats)
        key = self._key(line.place.turn, line.place.at, line.plan)
        return own + sum(
            min(other.live, own + (self._key(other.place.turn, other.place.at, other.plan) < key))
            for other in self._lines.values()
            if other is not line
        )

    def first(self) -> tuple[Rank, Seat] | None:
        """The best seat, after its rank among the best ones of other kinds."""
        seat = self.best()
        if seat is None:
            return None
        line = self._lines[seat.plan.plan_id]
        return (self._key(0, line.place.at, line.plan), *_order_of(seat)), seat

    def best(self) -> Seat | None:
        """The best task of the plan whose turn it is."""
        while self._heap:
            _, _, entry, plan_id = self._heap[0]
            line = self._lines.get(plan_id)
            if line is not None and line.entry == entry:
                while not line.seats[0][-1].live:  # one of them is: else the line were forgotten
                    heapq.heappop(line.seats)
                return line.seats[0][-1]
            heapq.heappop(self._heap)
        return None

    def take(self, seat: Seat, now: float) -> None:
        """Reserve the best seat: it is its plan's turn."""
        line = self._lines[seat.plan.plan_id]
        seat.before = line.place
        seat.reserved = True
        self._turns += 1
        self._leave(seat)
        if line.live:
            self._stand(line, Place(self._turns, now))

    def put_back(self, seat: Seat) -> None:
        """Undo `take`: the seat was not wanted, and its plan has not had a turn."""
        seat.reserved = False
        self._join(seat, seat.before or Place(self._turns, seat.since))
        self.take_back_turn(seat)

    def take_back_turn(self, seat: Seat) -> None:
        """The plan of ``seat`` has not had the turn for which the seat was reserved."""
        line, before = self._lines.get(seat.plan.plan_id), seat.before
        if before is None:
            return
        seat.before = None
        self._turns -= 1
        if line is not None and before < line.place:
            self._stand(line, before)

    def _join(self, seat: Seat, place: Place) -> None:
        """Put a seat in its plan's line, which begins at ``place`` if it is a new one."""
        line = self._lines.get(seat.plan.plan_id)
        if line is None:
            line = self._lines[seat.plan.plan_id] = _Line(seat.plan, place)
            self._stand(line, place)
        heapq.heappush(line.seats, (*_order_of(seat), next(self._order), seat))
        line.live += 1

    def _key(self, turn: float, at: float, plan: Plan) -> float:
        return turn + at * self._per_second - plan.spec.priority * TURNS_PER_PRIORITY

    def _stand(self, line: _Line, place: Place) -> None:
        """Put a line at ``place``; of two at the same, the plan that was submitted first leads."""
        line.place, line.entry, plan = place, next(self._order), line.plan
        key = self._key(place.turn, place.at, plan)
        heapq.heappush(self._heap, (key, plan.first_sequence, line.entry, plan.plan_id))
        if len(self._heap) > 2 * len(self._lines) + _SLACK:
            self._heap = [each for each in self._heap if self._counts(each)]
            heapq.heapify(self._heap)

    def _forget_ages(self) -> None:
        """Drop dead entries before they are many: `oldest` would have to take them out at once."""
        if len(self._ages) > 2 * self.count + _SLACK:
            self._ages = [entry for entry in self._ages if entry[2].live]
            heapq.heapify(self._ages)

    def _counts(self, entry: tuple[float, int, int, str]) -> bool:
        line = self._lines.get(entry[3])
        return line is not None and line.entry == entry[2]

    def _leave(self, seat: Seat) -> None:
        """Take a seat out of its line; a line without seats is forgotten."""
        line = self._lines[seat.plan.plan_id]
        line.live -= 1
        if not line.live:
            del self._lines[seat.plan.plan_id]
        elif seat.reserved:
            heapq.heappop(line.seats)  # it was the best one
        else:
            line.clear_out()
