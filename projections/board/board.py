"""The in-memory projection that claims and guards are decided on: all unfinished plans.

It is rebuilt at start and follows the log; nothing here is stored. Where their tasks stand, and so
what can be claimed, is the matter of `projections.board.places`.

Finished plans leave memory, except the last few (`projections.board.recent`), and so do outputs
that no unfinished task needs (`projections.board.outputs`).
"""

from collections import OrderedDict
from collections.abc import Generator, Iterable

from projections.board.lanes import SharingRule
from projections.board.leases import Clock
from projections.board.outputs import MAX_BYTES, Outputs
from projections.board.peers import Peers
from projections.board.places import TaskPlaces
from projections.board.recent import RecentLimits, RecentPlans
from projections.board.unfinished import UnfinishedBytes
from streams.log import BadFact, Fact
from streams.plan.events import (
    Claimed,
    Heartbeat,
    Paused,
    Progress,
    Resumed,
    Retried,
    Started,
    Submitted,
)
from streams.plan.fold import (
    Tombstone,
    begin_plan,
    fold_fact,
    folding,
    forgets,
    last_sequence,
)
from streams.plan.lifecycle import ENDED
from streams.plan.state import Plan
from streams.subjects import split_subject

_REMEMBERED_IGNORED = 1_000
_MOVE_ALL = {Paused, Resumed, Retried}  # facts after which any task may stand elsewhere
_END_NOTHING = {Heartbeat, Started, Progress}  # and hold no output or checkpoint


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
        self.places = TaskPlaces(self.plans, rule, self.peers, clock)
        self._changed: dict[str, Plan] = {}
        self._forgotten: dict[str, Tombstone] = {}
        self._prepared: dict[int, Plan | str] = {}

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
            self.places.place_the_rest()

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
            self.places.lanes.took(now - fact.at)
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

    def prepare(self, sequence: int, plan: Plan | str) -> None:
        """Use ``plan`` (`streams.plan.fold.begin_plan`) when the fact at ``sequence`` comes."""
        self._prepared = {sequence: plan}

    def drain(self) -> list[Plan]:
        """The plans that changed since the last call; the caller drains each of them.

        What they take, and whether they can finish, is known from here on.
        """
        self.places.place_the_rest()
        changed, self._changed = self._changed, {}
        for plan in changed.values():
            if self.is_placing:
                self._watch_end(plan)
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
        kind = type(event)
        if self.is_placing:
            moved = plan.tasks.values() if kind in _MOVE_ALL else plan.latest
            self.places.place_each(plan, moved, now)
        if kind is Claimed:
            if ignored is None and fact.origin.instance:
                task = plan.tasks[fact.task_id or ""]
                self.peers.saw(fact.origin.instance, task.spec.kind, fact.at)
        elif kind not in _END_NOTHING and self.outputs.has_work(plan):
            yield from self.outputs.settle(plan)
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
        plan = self._wake(plan_id)
        reach = 0 if plan is None else last_sequence(plan)
        self._forgotten[plan_id] = Tombstone(plan_id, fact.sequence, fact.at, reach)
        self._changed.pop(plan_id, None)
        self.finishable.discard(plan_id)
        if plan is None:
            return
        plan.cancelled = True
        for task in plan.tasks.values():
            if task.status not in ENDED:
                task.status = "CANCELLED"  # so it leaves its lane, its timer and the running ones
                self.places.place(plan, task, now)
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
            self.places.unseat(task)
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
                self.places.place(plan, task, now)
                yield

    def _place_all(self, plan: Plan, now: float) -> None:
        if self.is_placing:
            self._watch_end(plan)
            self.places.place_each(plan, plan.tasks.values(), now)
