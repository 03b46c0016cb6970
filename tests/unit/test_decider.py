"""Load, decide, append, see it folded: what happens when another writer was quicker."""

import asyncio

import pytest

from streams.codec import encode_payload
from streams.decider import CommandAccepted, Contention, DecideLimits, transact_together
from streams.log import NO_ORIGIN, Appended, Conflict, Draft, LogUnavailable
from streams.plan import commands
from streams.plan.decisions import Duplicate, GuardReject, NotAllowed, NotFound, PlanExists
from streams.plan.events import Completed, Paused, Started, Submitted
from tests.memory_log import Fault, MemoryLog
from tests.unit.claim_story import Instance, LogTime
from tests.unit.plan_story import task

DAY_S = 86_400


class Pair:
    """Two instances on one log; ``b`` folds only what it must."""

    def __init__(self) -> None:
        self.clock = LogTime()
        self.log = MemoryLog(self.clock)
        self.a = Instance(self.log, self.clock, "a")
        self.b = Instance(self.log, self.clock, "b")

    async def length(self) -> int:
        return (await self.log.state()).head

    async def claimed(self) -> None:
        """Task a of plan p is claimed by w1, and both know it."""
        await self.a.submit("p", task("a", lease_s=60), task("b"))
        assert isinstance(await self.a.say(claim("a")), CommandAccepted)
        await self.b.fold()


def claim(task_id: str, owner: str = "w1") -> commands.Claim:
    return commands.Claim(plan_id="p", task_id=task_id, owner=owner)


def word(kind: type[commands.OwnerCommand], **fields: object) -> commands.OwnerCommand:
    fence = {"plan_id": "p", "task_id": "a", "owner": "w1", "attempt": 1}
    return kind(**fence, **fields)  # type: ignore[arg-type]


@pytest.fixture
def pair() -> Pair:
    return Pair()


async def test_what_is_accepted_is_folded_when_the_answer_comes(pair: Pair) -> None:
    await pair.a.submit("p", task("a"))
    outcome = await pair.a.say(claim("a"))
    assert isinstance(outcome, CommandAccepted)
    assert outcome.sequence == 2 == pair.a.board.sequence
    assert outcome.plan is pair.a.knows("p")


async def test_who_lost_the_race_judges_again_on_what_the_winner_wrote(pair: Pair) -> None:
    await pair.claimed()
    assert isinstance(await pair.a.say(word(commands.Complete)), CommandAccepted)
    # b has not folded it: its append meets a conflict, it catches up, and knows better.
    assert isinstance(await pair.b.say(word(commands.Release)), GuardReject)
    assert isinstance(await pair.b.say(word(commands.Complete)), Duplicate)
    assert await pair.length() == 3


async def test_a_worker_may_speak_to_an_instance_that_has_not_seen_its_claim(pair: Pair) -> None:
    await pair.a.submit("p", task("a", lease_s=60))
    await pair.b.fold()
    assert isinstance(await pair.a.say(claim("a")), CommandAccepted)
    # b still believes the task to be READY; refusing its owner would be a lie.
    assert isinstance(await pair.b.say(word(commands.Start)), CommandAccepted)
    assert isinstance(await pair.a.say(word(commands.Complete)), CommandAccepted)


async def test_an_operator_is_answered_from_the_head_of_the_log(pair: Pair) -> None:
    await pair.a.submit("p", task("a"))
    await pair.b.fold()
    assert isinstance(await pair.a.say(commands.Pause(plan_id="p")), CommandAccepted)
    # b still believes the plan to be READY; "it is resumed already" would leave it paused.
    assert isinstance(await pair.b.say(commands.Resume(plan_id="p")), CommandAccepted)
    assert isinstance(await pair.a.say(commands.Resume(plan_id="p")), Duplicate)


async def test_a_claim_has_one_try(pair: Pair) -> None:
    await pair.a.submit("p", task("a"))
    await pair.b.fold()
    assert isinstance(await pair.a.say(claim("a")), CommandAccepted)
    assert isinstance(await pair.b.say(claim("a", "w2"), limits=DecideLimits(tries=1)), Contention)
    assert pair.b.board.sequence == 2, "it has caught up with the winner"


async def test_a_new_plan_whose_id_is_taken_elsewhere_is_noticed(pair: Pair) -> None:
    await pair.a.submit("p", task("a"))
    same = commands.Submit(plan_id="p", plan=Submitted(tasks=(task("a"),)))
    other = commands.Submit(plan_id="p", plan=Submitted(tasks=(task("z"),)))
    assert isinstance(await pair.b.say(same), Duplicate)
    assert isinstance(await pair.b.say(other), PlanExists)
    assert await pair.length() == 1


async def test_an_instance_that_knows_nothing_loads_the_plan(pair: Pair) -> None:
    await pair.a.submit("p", task("a"))
    assert isinstance(await pair.b.say(claim("a")), CommandAccepted)
    assert isinstance(await pair.b.say(commands.Pause(plan_id="nobody")), NotFound)


async def test_of_many_commands_those_that_win_at_once_are_answered_together(pair: Pair) -> None:
    await pair.claimed()
    assert isinstance(await pair.a.say(claim("b", "w2")), CommandAccepted)
    await pair.a.submit("q", task("a", lease_s=60))
    late = commands.Start(plan_id="p", task_id="b", owner="w2", attempt=9)
    wanted: list[commands.OwnerCommand] = [
        word(commands.Start),
        word(commands.Complete),  # judged by itself: it comes after another of the same task
        late,  # refused: `transact` judges a refusal twice
        commands.Start(plan_id="none", task_id="a", owner="w", attempt=1),
    ]
    said = [(each, NO_ORIGIN) for each in wanted]
    head = await pair.length()
    started, *others = await transact_together(said, pair.a, pair.log)
    assert started == CommandAccepted(head + 1, pair.a.knows("p"))
    assert others == [None, None, None]
    assert (await pair.length(), pair.a.board.sequence) == (head + 1, head + 1)


async def test_of_many_commands_those_that_lose_are_left_to_be_judged_again(pair: Pair) -> None:
    await pair.claimed()
    assert isinstance(await pair.a.say(claim("b", "w2")), CommandAccepted)
    await pair.b.fold()
    assert isinstance(await pair.a.say(word(commands.Complete)), CommandAccepted)
    other = commands.Heartbeat(plan_id="p", task_id="b", owner="w2", attempt=1)
    said = [(word(commands.Heartbeat), NO_ORIGIN), (other, NO_ORIGIN)]
    lost, won = await transact_together(said, pair.b, pair.log)
    assert (type(lost), type(won)) == (Conflict, CommandAccepted)
    pair.log.fail_next(Fault.LOST_BEFORE)
    (failed,) = await transact_together([(other, NO_ORIGIN)], pair.b, pair.log)
    assert isinstance(failed, LogUnavailable)


async def test_a_fact_that_the_fold_ignores_is_no_success_among_many(pair: Pair) -> None:
    await pair.claimed()
    await pair.b.say(commands.Cancel(plan_id="p"))
    # a has not folded the cancellation, which stands on another subject than the task's.
    said = [(word(commands.Heartbeat), NO_ORIGIN)]
    assert await transact_together(said, pair.a, pair.log) == [None]
    assert isinstance(await pair.a.say(word(commands.Heartbeat)), GuardReject | NotAllowed)


async def test_lost_races_are_bounded(pair: Pair) -> None:
    await pair.claimed()
    pair.log.fail_next(*[Fault.CONFLICT] * 3)
    assert isinstance(
        await pair.a.say(word(commands.Start), limits=DecideLimits(tries=4)), CommandAccepted
    )
    pair.log.fail_next(*[Fault.CONFLICT] * 3)
    assert await pair.a.say(word(commands.Heartbeat), limits=DecideLimits(tries=3)) == Contention(3)


async def test_a_heartbeat_that_expired_under_the_expectation_costs_no_try(pair: Pair) -> None:
    await pair.claimed()
    await pair.a.say(word(commands.Heartbeat))
    pair.clock.at += DAY_S + 1
    pair.log.expire()
    outcome = await pair.a.say(word(commands.Complete), limits=DecideLimits(tries=1))
    assert isinstance(outcome, CommandAccepted)
    assert pair.a.board.plans["p"].tasks["a"].status == "COMPLETED"


async def test_a_fact_that_the_fold_ignores_is_not_an_acceptance(pair: Pair) -> None:
    await pair.claimed()
    assert isinstance(await pair.a.say(commands.Cancel(plan_id="p")), CommandAccepted)
    # b does not know; the task's own subject has not changed, so its append succeeds.
    outcome = await pair.b.say(word(commands.Complete))
    assert isinstance(outcome, GuardReject)
    assert outcome.current.status == "CANCELLED"
    assert pair.b.board.ignored.keys() == {4}


async def test_a_claim_after_a_pause_that_was_not_seen_is_no_claim(pair: Pair) -> None:
    await pair.claimed()
    await pair.a.say(commands.Pause(plan_id="p"))
    outcome = await pair.b.say(claim("b", "w2"))
    assert isinstance(outcome, NotAllowed)
    assert outcome.status == "PAUSED"
    await pair.a.fold()
    assert pair.a.board.plans["p"].tasks["b"].status == "READY"


@pytest.mark.parametrize(("fault", "written"), [(Fault.LOST_BEFORE, 0), (Fault.LOST_AFTER, 1)])
async def test_an_append_without_an_answer_may_be_repeated(
    pair: Pair, fault: Fault, written: int
) -> None:
    await pair.claimed()
    before = await pair.length()
    pair.log.fail_next(fault)
    with pytest.raises(LogUnavailable):
        await pair.a.say(word(commands.Complete))
    assert await pair.length() == before + written
    outcome = await pair.a.say(word(commands.Complete))
    assert isinstance(outcome, Duplicate if written else CommandAccepted)
    assert await pair.length() == before + 1


async def test_facts_published_by_hand_are_stepped_over(pair: Pair) -> None:
    await pair.claimed()
    pair.log.publish("plans.p.a", encode_payload(Started(owner="evil", attempt=1)))
    pair.log.publish("plans.p.a", encode_payload(Completed(owner="w1", attempt=9)))
    assert isinstance(await pair.b.say(word(commands.Complete)), CommandAccepted)
    await pair.a.fold()
    assert pair.a.board.plans["p"].tasks["a"].status == "COMPLETED"
    assert list(pair.a.board.ignored) == [3, 4]


async def test_no_write_follows_an_unreadable_message(pair: Pair) -> None:
    await pair.claimed()
    pair.log.publish("plans.p.a", b"\xff garbage")
    before = await pair.length()
    outcome = await pair.a.say(word(commands.Complete))
    assert isinstance(outcome, NotAllowed)
    assert await pair.length() == before


async def test_finished_is_written_once(pair: Pair) -> None:
    await pair.claimed()
    for task_id in ("a", "b"):
        if task_id == "b":
            await pair.a.say(claim("b"))
        await pair.a.say(commands.Complete(plan_id="p", task_id=task_id, owner="w1", attempt=1))
    await pair.b.fold()
    finish = commands.Finish(plan_id="p")
    assert isinstance(await pair.a.say(finish), CommandAccepted)
    assert isinstance(await pair.b.say(finish), Duplicate)
    assert await pair.length() == 6


async def test_an_id_on_whose_subject_something_else_stands_is_refused_with_the_reason(
    pair: Pair,
) -> None:
    for plan_id, payload in (("stray", b"hello"), ("fact", encode_payload(Paused()))):
        sequence = pair.log.publish(f"plans.{plan_id}", payload)
        submit = commands.Submit(plan_id=plan_id, plan=Submitted(tasks=(task("a"),)))
        outcome = await pair.a.say(submit)
        assert isinstance(outcome, PlanExists)
        assert f"sequence {sequence} " in outcome.detail


async def test_a_task_on_whose_subject_something_stood_before_its_plan_is_worked_on(
    pair: Pair,
) -> None:
    pair.log.publish("plans.p.a", b"hello")
    await pair.claimed()
    assert isinstance(await pair.b.say(word(commands.Complete)), CommandAccepted)


async def test_a_claim_does_not_lose_to_a_message_that_stood_before_the_plan(pair: Pair) -> None:
    pair.log.publish("plans.p.a", encode_payload(Started(owner="w1", attempt=1)))
    await pair.a.submit("p", task("a"))
    assert isinstance(await pair.a.say(claim("a"), limits=DecideLimits(tries=1)), CommandAccepted)


async def test_a_call_that_goes_on_losing_ends_in_time(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.claimed()
    append, asked = pair.log.append, 0

    async def slow(draft: Draft) -> Appended | Conflict:
        nonlocal asked
        asked += 1
        if asked > 1:
            await asyncio.Event().wait()
        return await append(draft)

    monkeypatch.setattr(pair.log, "append", slow)
    pair.log.fail_next(Fault.CONFLICT)
    with pytest.raises(LogUnavailable, match=r"within 0\.05 s"):
        await pair.a.say(word(commands.Complete), limits=DecideLimits(call_s=0.05))
