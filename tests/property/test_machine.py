"""A machine that does everything at random, and laws about the history that it leaves behind.

Two instances fold one log at different speeds; workers, old and new, say whatever comes to mind;
claims race, appends are lost before or after they land, instances start again from nothing, and
a client publishes facts by hand. At the end workers do their duty, and every plan must end.
"""

import asyncio
from collections.abc import Coroutine
from math import inf
from typing import Any, TypeVar

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw

from service.core.past import plan_at
from service.signals.metrics.registry import Metrics
from streams.codec import encode_payload
from streams.decider import CommandAccepted, DecideLimits
from streams.log import Fact, LogUnavailable
from streams.plan import commands
from streams.plan.decisions import GuardReject
from streams.plan.events import (
    Claimed,
    Completed,
    Event,
    Failed,
    Finished,
    Heartbeat,
    Released,
    Started,
    Submitted,
    Verdict,
)
from streams.plan.evolve import begin, evolve
from streams.plan.state import Plan
from tests.memory_log import Fault, MemoryLog
from tests.property.dice import LONG, effort, plans
from tests.property.history import check_history
from tests.unit.claim_story import Instance, LogTime
from tests.unit.plan_laws import check_plan, portrait

T = TypeVar("T")
Lease = tuple[str, str, str, int]

WHO = st.sampled_from([0, 1])
DICE = st.integers(0, 10_000)
METRICS = (
    Metrics()
)  # no law is about them, and to make them anew for each life is a third of the time
PATIENCE = 400  # rounds of faithful work after which every plan must have ended


class Machine(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = LogTime()
        self.log = MemoryLog(self.clock)
        self.instances = [self.instance("a", 0), self.instance("b", 0.25)]
        self.leases: list[Lease] = []
        self.plan_ids: list[str] = []

    def instance(self, name: str, lag_s: float) -> Instance:
        return Instance(self.log, self.clock, name, lag_s, METRICS)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def say(self, who: int, command: commands.Command) -> object:
        """Say it to an instance; an answer may get lost."""
        try:
            return self.do(self.instances[who].say(command))
        except LogUnavailable:
            return None

    # -- rules ------------------------------------------------------------------------------

    @initialize(plan=plans())
    def begin(self, plan: Submitted) -> None:
        self.submit(0, plan)

    @precondition(lambda self: len(self.plan_ids) < 3)
    @rule(who=WHO, plan=plans())
    def submit(self, who: int, plan: Submitted) -> None:
        plan_id = f"p{len(self.plan_ids)}"
        self.plan_ids.append(plan_id)
        self.say(who, commands.Submit(plan_id=plan_id, plan=plan))
        self.say(who, commands.Submit(plan_id=plan_id, plan=plan))

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 3.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.at += seconds

    @rule(who=WHO, facts=st.integers(1, 5))
    def fold(self, who: int, facts: int) -> None:
        self.do(self.instances[who].fold(facts))

    @rule(who=WHO, limit=st.integers(1, 4))
    def claim(self, who: int, limit: int) -> None:
        for pick in self.pick(who, limit):
            self.do(self.take(who, pick))

    @rule(limit=st.integers(1, 4))
    def race(self, limit: int) -> None:
        """Both instances pick before either claims, and claim at once."""

        async def both() -> None:
            picks = [(who, pick) for who in (0, 1) for pick in self.pick(who, limit)]
            await asyncio.gather(*(self.take(who, pick) for who, pick in picks))

        self.do(both())

    @rule(who=WHO, dice=DICE, word=st.integers(0, 8), retry_in_s=st.sampled_from([None, 0, 2.0]))
    def own(self, who: int, dice: int, word: int, retry_in_s: float | None) -> None:
        """Some lease's owner, perhaps of long ago, says something; results are said twice."""
        assume(self.leases)
        # The newest leases are the likeliest.
        lease = self.leases[-1 - min(dice % len(self.leases), dice % 7)]
        command = self.word(lease, word, retry_in_s)
        self.say(who, command)
        if word >= 3:
            self.say(1 - who, command)

    @rule(who=WHO, dice=DICE, word=st.integers(0, 5))
    def operate(self, who: int, dice: int, word: int) -> None:
        plan_id = self.plan_ids[dice % len(self.plan_ids)]
        if word == 4:
            self.say(who, commands.Retry(plan_id=plan_id, task_id=f"t{dice % 7}"))
        elif word == 5:
            self.say(who, commands.RetryAll(plan_id=plan_id))
        elif word != 3 or dice % 4 == 0:  # else hardly a plan would live
            kinds = (commands.Pause, commands.Resume, commands.Finish, commands.Cancel)
            self.say(who, kinds[word](plan_id=plan_id))

    @rule(who=WHO)
    def monitor(self, who: int) -> None:
        """The lease monitor and the plan closer of one instance do their round."""
        self.sweep(who)

    @rule(fault=st.sampled_from(Fault), appends=st.integers(0, 1))
    def trouble_ahead(self, fault: Fault, appends: int) -> None:
        self.log.fail_next(*([fault] * appends))

    @rule(who=WHO)
    def start_again(self, who: int) -> None:
        """An instance crashes and folds the log from its beginning."""
        old = self.instances[who]
        self.instances[who] = self.instance(old.instance_id, old.lag_s)

    @rule(dice=DICE, kind=st.integers(0, 6), attempt=st.integers(1, 4), by=st.sampled_from("ab"))
    def publish(self, dice: int, kind: int, attempt: int, by: str) -> None:
        """A client puts a fact in the log by hand; it may even make sense."""
        event = self.forged(kind, f"w-{by}", attempt)
        task = "" if isinstance(event, Finished) else f".t{dice % 7}"
        self.log.publish(
            f"plans.{self.plan_ids[dice % len(self.plan_ids)]}{task}", encode_payload(event)
        )

    # -- what the rules are made of ---------------------------------------------------------

    def pick(self, who: int, limit: int) -> list[Any]:
        instance = self.instances[who]
        picks = instance.board.places.pick(limit, None, instance.now())
        assert len(picks) <= limit
        assert all(pick.seat.reserved for pick in picks)
        assert len({id(pick.seat.task) for pick in picks}) == len(picks)
        return picks

    async def take(self, who: int, pick: Any) -> None:
        instance, seat = self.instances[who], pick.seat
        owner = f"w-{instance.instance_id}"
        attempt = seat.task.attempt + 1
        command = commands.Claim(
            plan_id=seat.plan.plan_id,
            task_id=seat.task.spec.id,
            owner=owner,
            start=attempt % 2 == 0,
        )
        try:
            outcome = await instance.say(command, limits=DecideLimits(tries=1))
        except LogUnavailable:
            return
        finally:
            instance.board.places.give_back(seat, instance.now())
        if isinstance(outcome, CommandAccepted):
            self.leases.append((command.plan_id, command.task_id, owner, attempt))

    def word(self, lease: Lease, word: int, retry_in_s: float | None) -> commands.OwnerCommand:
        plan_id, task_id, owner, attempt = lease
        fence = {"plan_id": plan_id, "task_id": task_id, "owner": owner, "attempt": attempt}
        match word:
            case 0:
                return commands.Start(**fence)  # type: ignore[arg-type]
            case 1:
                return commands.Heartbeat(progress=Raw(b"1"), **fence)  # type: ignore[arg-type]
            case 2:
                return commands.Progress(data=Raw(b"1"), **fence)  # type: ignore[arg-type]
            case 3:
                return commands.Release(retry_in_s=retry_in_s, **fence)  # type: ignore[arg-type]
            case 4:
                return commands.Fail(error_type="x", retry_in_s=retry_in_s, **fence)  # type: ignore[arg-type]
            case 5:
                return commands.Fail(error_type="timeout", retryable=True, **fence)  # type: ignore[arg-type]
            case 8:
                return commands.Checkpoint(key="k", value=Raw(b"%d" % attempt), **fence)  # type: ignore[arg-type]
            case _:
                passes = word == 6
                verdict = Verdict(pass_=passes) if self.is_critic(plan_id, task_id) else None
                return commands.Complete(verdict=verdict, **fence)  # type: ignore[arg-type]

    def is_critic(self, plan_id: str, task_id: str) -> bool:
        for instance in self.instances:
            plan = instance.knows(plan_id)
            if plan is not None:
                return plan.tasks[task_id].spec.type == "critic"
        return False

    def forged(self, kind: int, owner: str, attempt: int) -> Event:
        match kind:
            case 0:
                return Claimed(owner=owner, attempt=attempt, lease_s=1, previous_owner=None)
            case 1:
                return Started(owner=owner, attempt=attempt)
            case 2:
                return Heartbeat(owner=owner, attempt=attempt, lease_s=0.5)
            case 3:
                return Completed(owner=owner, attempt=attempt)
            case 4:
                return Failed(owner=owner, attempt=attempt, error_type="forged")
            case 5:
                return Released(owner=owner, attempt=attempt)
            case _:
                return Finished(status="COMPLETED")

    def sweep(self, who: int) -> None:
        board = self.instances[who].board
        board.places.advance(self.instances[who].now())
        for plan, task in board.places.expired():
            self.say(who, commands.Expire(plan_id=plan.plan_id, task_id=task.spec.id))
        for plan_id in list(board.finishable):
            self.say(who, commands.Finish(plan_id=plan_id))

    # -- laws -------------------------------------------------------------------------------

    @invariant()
    def the_laws_hold_of_every_plan(self) -> None:
        for instance in self.instances:
            for plan in (*instance.board.plans.values(), *instance.board.recent):
                check_plan(plan)
            unfinished = sum(plan.bytes for plan in instance.board.plans.values())
            assert instance.board.unfinished.total == unfinished

    @invariant()
    def boards_hand_out_exactly_what_can_be_claimed(self) -> None:
        for instance in self.instances:
            board, now = instance.board, instance.now()
            board.places.advance(now)
            claimable = {
                (plan.plan_id, task.spec.id)
                for plan in board.plans.values()
                if plan.hands_out_tasks
                for task in plan.tasks.values()
                if (task.claimable_at is not None and task.claimable_at <= now)
                or (
                    task.lease_until is not None
                    and task.lease_until <= now
                    and not task.leases_spent
                )
            }
            seated = {
                (seat.plan.plan_id, seat.task.spec.id)
                for seat in board.places.seats()
                if seat.plan.hands_out_tasks  # others leave at the next look
            }
            assert seated == claimable
            assert not any(seat.reserved for seat in board.places.seats()), "nothing is under way"

    # -- the end ----------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.plan_ids:
                self.everybody_does_their_duty()
                self.both_views_converge()
                self.the_past_is_what_its_facts_say()
        finally:
            self.loop.close()

    def everybody_does_their_duty(self) -> None:
        self.log.work_again()
        self.do(self.instances[0].fold())  # else it might not know that there is a pause to end
        for plan_id in self.plan_ids:
            self.say(0, commands.Resume(plan_id=plan_id))
        for round_number in range(PATIENCE):
            who = round_number % 2
            self.sweep(who)
            if self.ended():
                return
            before = len(self.leases)
            self.claim(who, 4)
            for lease in self.leases[before:]:
                # Critics are hard to please: they reject as long as it has any effect.
                outcome = self.say(who, self.word(lease, 7, None))
                assert isinstance(outcome, CommandAccepted | GuardReject), outcome
            self.clock.at += 1.5
        raise AssertionError([portrait(plan) for plan in self.instances[0].board.plans.values()])

    def ended(self) -> bool:
        for instance in self.instances:
            self.do(instance.fold())
        known = [self.instances[0].knows(plan_id) for plan_id in self.plan_ids]
        return all(plan is None or plan.finished_at is not None for plan in known)

    def the_past_is_what_its_facts_say(self) -> None:
        """A plan at any sequence is the fold of the facts up to there, whatever came later."""
        facts = self.do(self.log.scan(0, 1_000_000))
        plans = dict[str, Plan]()
        for fact in facts:
            assert isinstance(fact, Fact)
            plan = plans.get(fact.plan_id)
            if plan is not None:
                evolve(plan, fact.task_id, fact.event, sequence=fact.sequence, at=fact.at)
            elif isinstance(fact.event, Submitted):
                plans[fact.plan_id] = begin(
                    fact.plan_id, fact.event, sequence=fact.sequence, at=fact.at
                )
            if fact.sequence % 7 == 0 and (plan := plans.get(fact.plan_id)) is not None:
                then = self.do(plan_at(self.log, fact.plan_id, fact.sequence))
                assert then is not None
                assert portrait(then) == portrait(plan)

    def both_views_converge(self) -> None:
        a, b = self.instances
        facts = self.do(self.log.scan(0, 1_000_000))
        fresh: dict[str, Plan] = {}
        lived: list[tuple[Fact, str | None]] = []
        for fact in facts:
            assert isinstance(fact, Fact)
            if fact.plan_id in fresh:
                ignored = evolve(
                    fresh[fact.plan_id],
                    fact.task_id,
                    fact.event,
                    sequence=fact.sequence,
                    at=fact.at,
                )
            elif isinstance(fact.event, Submitted):
                ignored = None
                fresh[fact.plan_id] = begin(
                    fact.plan_id, fact.event, sequence=fact.sequence, at=fact.at
                )
            else:
                ignored = "there is no such plan"
            lived.append((fact, ignored))
        check_history(lived)
        for plan_id, plan in fresh.items():
            expected = portrait(plan)
            for instance in (a, b):
                seen = instance.knows(plan_id)
                assert seen is not None
                assert portrait(seen) == expected
        for instance in (a, b):
            assert instance.board.plans == {}
            assert instance.board.places.claimable == 0
            assert instance.board.places.timers.next_due() == inf


TestMachine = pytest.mark.timeout(3_000 if LONG else 120)(Machine.TestCase)
TestMachine.settings = effort(60, steps=40)
