"""Where each task of an unfinished plan stands: in a lane (claimable now), on a timer or nowhere.

A timer holds a retry delay, or a running lease and its attempt's time-out. After each fact the
touched tasks are placed anew, so the cost of a fact does not grow with its plan.
"""

from collections import Counter, deque
from collections.abc import Collection, Generator, Iterator, Mapping
from itertools import islice
from math import inf

import msgspec

from projections.board.holds import Holds
from projections.board.lanes import Lanes, Pick, Seat, SharingRule
from projections.board.leases import Clock, Leases
from projections.board.peers import Peers
from projections.board.timers import Timers
from streams.plan.decide import can_reclaim
from streams.plan.events import Lane
from streams.plan.lifecycle import CLAIMABLE
from streams.plan.state import Plan, Task

WIDE = 500  # tasks; the places of more are changed in parts, which others may come between
PLACED = 128  # tasks of such a part: each may be the first of its kind


class LanePosition(msgspec.Struct, frozen=True):
    """Where a claimable task stands in its lane, at log time ``since`` and later.

    ``ahead`` estimates how many tasks of its kind come before it, ``claimable`` counts them all;
    ``reserved`` while a claim on it is under way.
    """

    lane: Lane
    since: float
    ahead: int
    claimable: int
    reserved: bool


class TaskPlaces:
    """The places of the tasks of ``plans``, by id, and what can be claimed of them.

    ``clock`` guards leases against steps of the log's clock, where claims are made.
    """

    def __init__(
        self,
        plans: Mapping[str, Plan],
        rule: SharingRule,
        peers: Peers,
        clock: Clock | None,
    ) -> None:
        self.lanes = Lanes(rule, peers)
        self.leases = Leases(clock) if clock is not None else None
        self.timers: Timers[tuple[Plan, Task]] = Timers()
        self.running_kinds: Counter[str] = Counter()
        self._plans = plans
        self._peers = peers
        self._holds = Holds()
        self._seats: dict[int, Seat] = {}
        self._expired: dict[int, tuple[Plan, Task]] = {}
        self._running: dict[int, tuple[Plan, Task]] = {}
        self._late: dict[int, tuple[Plan, Task]] = {}  # past their time-out, the lease is not over
        self._to_place: deque[tuple[Plan, Iterator[Task]]] = deque()
        self._placed_at = 0.0

    # -- placing ----------------------------------------------------------------------------

    def place_each(self, plan: Plan, tasks: Collection[Task], now: float) -> None:
        """Place ``tasks`` now, or a part at a time (`place_some`) when they are many."""
        self._placed_at = now
        if len(tasks) > WIDE:
            self._to_place.append((plan, iter(list(tasks))))
            return
        for task in tasks:
            self.place(plan, task, now)

    def place_some(self, now: float) -> bool:
        """Place the next tasks of wide changes; whether there are more."""
        if self._to_place:
            plan, tasks = self._to_place[0]
            some = list(islice(tasks, PLACED))
            for task in some:
                self.place(plan, task, now)
            if len(some) < PLACED:
                self._to_place.popleft()
        return bool(self._to_place)

    def place_the_rest(self) -> None:
        """Place all that `place_some` has not placed yet."""
        while self.place_some(self._placed_at):
            pass

    def place(self, plan: Plan, task: Task, now: float) -> None:
        """Put a task where it belongs by its state: in a lane, on a timer, or nowhere."""
        key = id(task)
        if task.status == "RUNNING":
            if key not in self._running:
                self._running[key] = plan, task
                self.running_kinds[task.spec.kind] += 1
            self._place_running(plan, task, now)
            return
        if key in self._running:
            self._runs_no_more(task)
        since = task.claimable_at
        if task.status not in CLAIMABLE or since is None or not _hands_out(plan, task):
            if key in self._seats:
                self.unseat(task)
            self.timers.cancel(key)
        elif (due := max(since, self._holds.until(task, now))) > now:
            self.unseat(task)
            self.timers.set(key, due, (plan, task))
        else:
            self.timers.cancel(key)
            self._seat(plan, task, "ready" if task.status == "READY" else "refining", since)

    def _runs_no_more(self, task: Task) -> None:
        key, kind = id(task), task.spec.kind
        del self._running[key]
        self.running_kinds[kind] -= 1
        if not self.running_kinds[kind]:
            del self.running_kinds[kind]
        self._expired.pop(key, None)
        self._late.pop(key, None)
        if self.leases is not None:
            self.leases.forget(task)

    def _place_running(self, plan: Plan, task: Task, now: float) -> None:
        key, lease_until = id(task), task.lease_until
        if lease_until is None:
            return
        due = lease_until
        if self.leases is not None:
            self.leases.note(task)
            if due <= now and (left_s := self.leases.left_s(task)) > 0:
                due = now + left_s  # the log's clock has been set: see `leases`
        if due > now:
            self._expired.pop(key, None)
            if key in self._seats:
                self.unseat(task)
            overdue_at = task.overdue_at
            if overdue_at is not None and overdue_at <= now:
                self._late[key] = (plan, task)
            else:
                self._late.pop(key, None)
                due = due if overdue_at is None else min(due, overdue_at)
            self.timers.set(key, due, (plan, task))
            return
        self._expired[key] = (plan, task)
        if not _hands_out(plan, task) or not can_reclaim(task, now):
            self.unseat(task)
        elif (held := self._holds.until(task, now)) > now:
            self.unseat(task)
            self.timers.set(key, held, (plan, task))
        else:
            self._seat(plan, task, "ready", due)

    def _seat(self, plan: Plan, task: Task, lane: Lane, since: float) -> None:
        seat = self._seats.get(id(task))
        if seat is not None and seat.live and seat.lane == lane and seat.since == since:
            return
        if seat is not None:
            self.unseat(task)
        seat = Seat(plan, task, lane, since)
        self._seats[id(task)] = seat
        self.lanes.add(seat)

    def unseat(self, task: Task) -> None:
        """Take a task out of its lane, if it is in one."""
        seat = self._seats.pop(id(task), None)
        if seat is not None:
            self.lanes.remove(seat)

    def advance(self, now: float) -> None:
        """Let retry delays, leases and time-outs that are over at log time ``now`` take effect."""
        if self.timers.next_due() > now:
            return
        for plan, task in self.timers.take(now):
            if self._plans.get(plan.plan_id) is plan:
                self.place(plan, task, now)

    # -- claiming ---------------------------------------------------------------------------

    def pick(self, limit: int, kinds: Collection[str] | None, now: float) -> list[Pick]:
        """Reserve up to ``limit`` claimable tasks; `give_back` each one that was not claimed."""
        self.advance(now)
        self._peers.forget_silent(now)
        return self.lanes.pick(limit, kinds, now)

    def give_back(self, seat: Seat, now: float, *, lost: bool = False) -> None:
        """End a reservation; a task whose claim was ``lost`` is not offered again at once."""
        if lost:
            self._holds.lost(seat.task, now)
        if self._seats.get(id(seat.task)) is seat:
            self.unseat(seat.task)
            self.place(seat.plan, seat.task, now)
            if not lost:
                self.lanes.take_back_turn(seat)

    @property
    def claimable(self) -> int:
        """How many tasks sit in the lanes, reserved ones included."""
        return len(self._seats)

    def seats(self) -> list[Seat]:
        """What is claimable; a reserved one is being claimed."""
        return list(self._seats.values())

    def backlog(self) -> dict[Lane, tuple[int, float | None]]:
        """Per lane: how many tasks are claimable, and since when (log time) the oldest is."""
        lanes: tuple[Lane, Lane] = ("ready", "refining")
        return {lane: self.lanes.backlog(lane) for lane in lanes}

    def backlog_by_kind(self) -> Generator[None, None, dict[str, tuple[int, Seat]]]:
        """Per kind: how many tasks are claimable, and the seat of the one that is so longest.

        A step for each kind (`streams.steps`).
        """
        kinds: dict[str, tuple[int, Seat]] = {}
        lanes: tuple[Lane, Lane] = ("ready", "refining")
        for lane in lanes:
            for kind, tasks, oldest in self.lanes.counts(lane):
                others, older = kinds.get(kind, (0, oldest))
                kinds[kind] = others + tasks, min(older, oldest, key=_since)
                yield
        return kinds

    def standing(self, task: Task) -> LanePosition | None:
        """Where a task stands among the claimable; None when it is not among them."""
        seat = self._seats.get(id(task))
        if seat is None:
            return None
        return LanePosition(
            lane=seat.lane,
            since=seat.since,
            ahead=self.lanes.ahead_of(seat),
            claimable=self.lanes.count_of(seat),
            reserved=seat.reserved,
        )

    @property
    def running_count(self) -> int:
        """How many tasks are RUNNING, their leases live or expired."""
        return len(self._running)

    def running(self) -> list[tuple[Plan, Task]]:
        """RUNNING tasks, their leases live or expired."""
        return list(self._running.values())

    def overdue(self, now: float) -> list[tuple[Plan, Task]]:
        """RUNNING tasks that have outlived their time-out by one lease at log time ``now``."""
        self.advance(now)
        may_be = self._expired | self._late
        return [(plan, task) for plan, task in may_be.values() if self._is_overdue(task, now)]

    def _is_overdue(self, task: Task, now: float) -> bool:
        due = task.overdue_at
        if due is None or due >= now:
            return False
        if self.leases is None:
            return True
        # A step of the log's clock makes no attempt longer.
        return self.leases.ran_s(task) > (task.timeout_s or 0.0) + task.lease_s

    def expired(self) -> list[tuple[Plan, Task]]:
        """RUNNING tasks whose lease was over at the time of the last `advance`."""
        return list(self._expired.values())

    def next_due(self) -> float | None:
        """When a look at the board may find something new (log time), or None."""
        soonest = min(self.timers.next_due(), self.lanes.look_again_at)
        return None if soonest == inf else soonest


def _since(seat: Seat) -> float:
    return seat.since


def _hands_out(plan: Plan, task: Task) -> bool:
    """Whether a claim could be written: not on top of an unreadable fact."""
    return plan.hands_out_tasks and plan.unreadable_at is None and task.unreadable_at is None
