"""The in-memory projection that claims and guards are decided on: unfinished plans, lanes, leases.

It is rebuilt at start and follows the log; nothing here is stored. A task sits in one place at a
time: in a lane (claimable now), on a timer (a retry delay or a running lease), or nowhere. After
each fact the touched tasks are placed anew, so the cost of a fact does not grow with its plan.

Finished plans leave memory, except the last few (`projections.board.recent`), and so do outputs
that no unfinished task needs (`projections.board.outputs`).
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Generator, Iterable, Iterator
from itertools import islice
from math import inf

import msgspec

from projections.board.holds import Holds
from projections.board.lanes import Lanes, Pick, Seat, SharingRule
from projections.board.leases import Clock, Leases
from projections.board.outputs import MAX_BYTES, Outputs
from projections.board.peers import Peers
from projections.board.recent import RecentLimits, RecentPlans
from projections.board.time_outs import TimeOuts
from projections.board.timers import Timers
from projections.board.unfinished import UnfinishedBytes
from streams.log import BadFact, Fact
from streams.plan.decide import can_reclaim
from streams.plan.events import Claimed, Heartbeat, Lane, Paused, Resumed, Retried, Submitted
from streams.plan.fold import Tombstone, begin_plan, fold_fact, folding, forgets
from streams.plan.lifecycle import CLAIMABLE, ENDED
from streams.plan.state import Plan, Task
from streams.subjects import split_subject

WIDE = 500  # tasks; the places of more are changed in parts, which others may come between
PLACED = 128  # tasks of such a part: each may be the first of its kind
_REMEMBERED_IGNORED = 1_000


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


class Board:
    """All unfinished plans as folded up to ``sequence``, and what can be claimed of them."""

    def __init__(
        self,
        rule: SharingRule,
        instance_id: str,
        *,
        recent: RecentLimits | None = None,
        output_bytes: int = MAX_BYTES,
        clock: Clock | None = None,
    ) -> None:
        """``recent`` bounds finished plans in memory, ``output_bytes`` outputs that are needed.

        ``clock`` guards leases against steps of the log's clock, where claims are made.
        """
        self.sequence = 0
        self.is_placing = True
        """False while the past is folded, of which nothing is claimed: see `place_everything`."""
        self.is_folding = False
        """Whether a fact after `sequence` is folded in part: its plan stands for neither."""
        self.plans: dict[str, Plan] = {}
        self.unfinished = UnfinishedBytes()
        self.recent = RecentPlans(recent or RecentLimits())
        self.outputs = Outputs(output_bytes)
        self.finishable: set[str] = set()
        self.bad_facts = 0
        self.ignored: OrderedDict[int, str] = OrderedDict()
        self.peers = Peers(instance_id)
        self.lanes = Lanes(rule, self.peers)
        self._holds = Holds()
        self.leases = Leases(clock) if clock is not None else None
        self._time_outs = TimeOuts(self.leases)
        self.timers: Timers[tuple[Plan, Task]] = Timers()
        self._seats: dict[int, Seat] = {}
        self._expired: dict[int, tuple[Plan, Task]] = {}
        self._running: dict[int, tuple[Plan, Task]] = {}
        self.running_kinds: Counter[str] = Counter()
        self._changed: dict[str, Plan] = {}
        self._forgotten: dict[str, Tombstone] = {}
        self._prepared: dict[int, Plan | str] = {}
        self._to_place: deque[tuple[Plan, Iterator[Task]]] = deque()
        self._placed_at = 0.0

    # -- folding ----------------------------------------------------------------------------

    def knows(self, plan_id: str) -> Plan | None:
        """The plan if it is in memory (unfinished, or finished a moment ago)."""
        return self.plans.get(plan_id) or self.recent.get(plan_id)

    def restore(self, plans: Iterable[Plan], sequence: int, now: float) -> None:
        """Take over unfinished plans as the read models kept them up to ``sequence``."""
        self.sequence = sequence
        for plan in plans:
            self.plans[plan.plan_id] = plan
            self._place_all(plan, now)
            self._place_the_rest()

    def adopt(self, plan: Plan) -> None:
        """Keep a finished plan, folded from the log on request, at hand."""
        self.outputs.forget(plan)
        self.recent.add(plan)

    def apply(self, fact: Fact | BadFact, now: float) -> str | None:
        """Fold one fact; answers why it was ignored, or None.

        A fact about a plan that is not in memory is ignored: recall the plan first (`adopt`).
        """
        for _ in self.applying(fact, now):  # cheaper than a StopIteration that is caught
            pass
        return self.ignored.get(fact.sequence)

    def applying(self, fact: Fact | BadFact, now: float) -> Generator[None, None, str | None]:
        """`apply` in short steps; no other fact may be applied in between."""
        if self.is_placing:
            self.lanes.took(now - fact.at)
        self.is_folding = True
        if isinstance(fact, BadFact):
            ignored = self._bad(fact, now)
        else:
            ignored = yield from self._fold(fact, now)
        self.sequence = fact.sequence
        self.is_folding = False
        if ignored is not None:
            self.ignored[fact.sequence] = ignored
            if len(self.ignored) > _REMEMBERED_IGNORED:
                self.ignored.popitem(last=False)
        return ignored

    def is_wide(self, fact: Fact | BadFact) -> bool:
        """Whether ``fact`` begins a plan so large that it is better begun off the loop."""
        if not isinstance(fact, Fact) or not isinstance(fact.event, Submitted):
            return False
        return len(fact.event.tasks) > WIDE and self.knows(fact.plan_id) is None

    def is_large(self, fact: Fact | BadFact) -> bool:
        """Whether one fact about this plan may change so much that it should be folded in steps."""
        plan = self.plans.get(fact.plan_id) if isinstance(fact, Fact) else None
        return plan is not None and len(plan.tasks) > WIDE

    def prepare(self, sequence: int, plan: Plan | str) -> None:
        """Use ``plan`` (`streams.plan.fold.begin_plan`) when the fact at ``sequence`` comes."""
        self._prepared = {sequence: plan}

    def place_some(self, now: float) -> bool:
        """Place the next tasks of wide changes; whether there are more."""
        if self._to_place:
            plan, tasks = self._to_place[0]
            some = list(islice(tasks, PLACED))
            for task in some:
                self._place(plan, task, now)
            if len(some) < PLACED:
                self._to_place.popleft()
        return bool(self._to_place)

    def _place_the_rest(self) -> None:
        while self.place_some(self._placed_at):
            pass

    def drain(self) -> list[Plan]:
        """The plans that changed since the last call; the caller drains each of them."""
        self._place_the_rest()
        changed, self._changed = self._changed, {}
        for plan in changed.values():
            self._leave_if_finished(plan)
        return list(changed.values())

    def drain_forgotten(self) -> dict[str, Tombstone]:
        """The plans forgotten since the last call."""
        forgotten, self._forgotten = self._forgotten, {}
        return forgotten

    def _fold(self, fact: Fact, now: float) -> Generator[None, None, str | None]:
        event = fact.event
        if fact.task_id is None:
            if forgets(fact):
                return self._forget(fact, now)
            if isinstance(event, Submitted) and not self.knows(fact.plan_id):
                return self._begin(fact, now)
        plan = self.plans.get(fact.plan_id) or self._wake(fact.plan_id)
        if plan is None:
            return f"there is no plan '{fact.plan_id}'"
        ignored = yield from folding(plan, fact)
        self._changed[plan.plan_id] = plan
        if fact.task_id is None and isinstance(event, Paused | Resumed | Retried):
            self._place_all(plan, now)
        self._place_each(plan, plan.latest, now)
        if type(event) is Heartbeat:  # ends nothing, and holds nothing
            return ignored
        if self.outputs.has_work(plan):
            yield from self.outputs.settle(plan)
        if isinstance(event, Claimed) and ignored is None and fact.origin.instance:
            self.peers.saw(fact.origin.instance, _kind_of(plan, fact.task_id), fact.at)
        return ignored

    def _begin(self, fact: Fact, now: float) -> str | None:
        plan = self._prepared.pop(fact.sequence, None) or begin_plan(fact)
        if isinstance(plan, str):
            return plan
        self.plans[fact.plan_id] = plan
        self._changed[plan.plan_id] = plan
        self._place_all(plan, now)
        return None

    def _forget(self, fact: Fact, now: float) -> None:
        """Drop the plan, whatever state it is in: earlier facts may have left the log."""
        plan_id = fact.plan_id
        self._forgotten[plan_id] = Tombstone(plan_id, fact.sequence, fact.at)
        self._changed.pop(plan_id, None)
        self.finishable.discard(plan_id)
        plan = self._wake(plan_id)
        if plan is None:
            return
        plan.cancelled = True
        for task in plan.tasks.values():
            if task.status not in ENDED:
                task.status = "CANCELLED"  # so it leaves its lane, its timer and the running ones
                self._place(plan, task, now)
        del self.plans[plan_id]
        self.unfinished.forget(plan)
        self.outputs.forget(plan)

    def _bad(self, fact: BadFact, now: float) -> str:
        self.bad_facts += 1
        plan_id, _ = split_subject(fact.subject) or ("", None)
        if plan := self._wake(plan_id):
            fold_fact(plan, fact)
            self._changed[plan_id] = plan
            self._place_all(plan, now)
        return fact.reason

    def _wake(self, plan_id: str) -> Plan | None:
        """The plan, back among the unfinished if it had just left."""
        plan = self.plans.get(plan_id)
        if plan is None and (plan := self.recent.pop(plan_id)) is not None:
            self.plans[plan_id] = plan
        return plan

    def _watch_end(self, plan: Plan) -> None:
        self.unfinished.count(plan)
        if plan.can_finish:
            self.finishable.add(plan.plan_id)
        else:
            self.finishable.discard(plan.plan_id)

    def _leave_if_finished(self, plan: Plan) -> None:
        if plan.finished_at is None or plan.plan_id not in self.plans:
            return
        for task in plan.tasks.values():
            self._unseat(task)
        del self.plans[plan.plan_id]
        self.unfinished.forget(plan)
        self.adopt(plan)

    # -- placing ----------------------------------------------------------------------------

    def place_everything(self, now: float) -> Generator[None]:
        """Place the tasks of all unfinished plans, in short steps; no fact may come in between."""
        self.is_placing = True
        for plan in list(self.plans.values()):
            self._watch_end(plan)
            for task in plan.tasks.values():
                self._place(plan, task, now)
                yield

    def _place_all(self, plan: Plan, now: float) -> None:
        self._place_each(plan, plan.tasks.values(), now)

    def _place_each(self, plan: Plan, tasks: Collection[Task], now: float) -> None:
        """Place ``tasks`` now, or a part at a time (`place_some`) when they are many."""
        if not self.is_placing:
            return
        self._watch_end(plan)
        self._placed_at = now
        if len(tasks) > WIDE:
            self._to_place.append((plan, iter(list(tasks))))
            return
        for task in tasks:
            self._place(plan, task, now)

    def _place(self, plan: Plan, task: Task, now: float) -> None:
        """Put a task where it belongs by its state: in a lane, on a timer, or nowhere."""
        key = id(task)
        if task.status == "RUNNING":
            if key not in self._running:
                self._running[key] = plan, task
                self.running_kinds[task.spec.kind] += 1
            self._time_outs.watch(plan, task)
            self._place_running(plan, task, now)
            return
        if key in self._running:
            self._runs_no_more(task)
        since = task.claimable_at
        if task.status not in CLAIMABLE or since is None or not _hands_out(plan, task):
            if key in self._seats:
                self._unseat(task)
            self.timers.cancel(key)
        elif (due := max(since, self._holds.until(task, now))) > now:
            self._unseat(task)
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
        self._time_outs.forget(task)
        self._expired.pop(key, None)
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
                self._unseat(task)
            self.timers.set(key, due, (plan, task))
            return
        self._expired[key] = (plan, task)
        if not _hands_out(plan, task) or not can_reclaim(task, now):
            self._unseat(task)
        elif (held := self._holds.until(task, now)) > now:
            self._unseat(task)
            self.timers.set(key, held, (plan, task))
        else:
            self._seat(plan, task, "ready", due)

    def _seat(self, plan: Plan, task: Task, lane: Lane, since: float) -> None:
        seat = self._seats.get(id(task))
        if seat is not None and seat.live and seat.lane == lane and seat.since == since:
            return
        self._unseat(task)
        seat = Seat(plan, task, lane, since)
        self._seats[id(task)] = seat
        self.lanes.add(seat)

    def _unseat(self, task: Task) -> None:
        seat = self._seats.pop(id(task), None)
        if seat is not None:
            self.lanes.remove(seat)

    def advance(self, now: float) -> None:
        """Let retry delays and leases that are over at log time ``now`` take effect."""
        if self.timers.next_due() > now:
            return
        for plan, task in self.timers.take(now):
            if self.plans.get(plan.plan_id) is plan:
                self._place(plan, task, now)

    # -- claiming ---------------------------------------------------------------------------

    def pick(self, limit: int, kinds: Collection[str] | None, now: float) -> list[Pick]:
        """Reserve up to ``limit`` claimable tasks; `give_back` each one that was not claimed."""
        self.advance(now)
        self.peers.forget_silent(now)
        return self.lanes.pick(limit, kinds, now)

    def give_back(self, seat: Seat, now: float, *, lost: bool = False) -> None:
        """End a reservation; a task whose claim was ``lost`` is not offered again at once."""
        if lost:
            self._holds.lost(seat.task, now)
        if self._seats.get(id(seat.task)) is seat:
            self._unseat(seat.task)
            self._place(seat.plan, seat.task, now)
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
        return self._time_outs.overdue(now)

    def expired(self) -> list[tuple[Plan, Task]]:
        """RUNNING tasks whose lease was over at the time of the last `advance`."""
        return list(self._expired.values())

    def next_due(self) -> float | None:
        """When a look at the board may find something new (log time), or None."""
        soonest = min(self.timers.next_due(), self.lanes.look_again_at)
        return None if soonest == inf else soonest


def _kind_of(plan: Plan, task_id: str | None) -> str:
    task = plan.tasks.get(task_id or "")
    return task.spec.kind if task is not None else ""


def _since(seat: Seat) -> float:
    return seat.since


def _hands_out(plan: Plan, task: Task) -> bool:
    """Whether a claim could be written: not on top of an unreadable fact."""
    return plan.hands_out_tasks and plan.unreadable_at is None and task.unreadable_at is None
