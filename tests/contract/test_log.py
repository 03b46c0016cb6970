"""What every implementation of the log promises."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest

from streams.log import (
    Appended,
    BadFact,
    Conflict,
    Draft,
    Fact,
    Log,
    LogFull,
    LogReset,
    LogUnavailable,
    Origin,
    TooLarge,
)
from streams.plan.events import Completed, Raw
from tests.contract.conftest import MAX_PAYLOAD, World
from tests.contract.drafts import (
    CLAIMED,
    PAUSED,
    STARTED,
    SUBMITTED,
    all_of,
    on_plan,
    on_task,
    tail,
    won,
)


async def test_a_first_fact_expects_nothing_and_the_next_one_its_predecessor(log: Log) -> None:
    first = await won(log, on_task("t"))
    second = await won(log, on_task("t", first, STARTED))
    assert (first, second) == (1, 2)


async def test_a_lost_race_is_a_value_that_names_the_actual_sequence(log: Log) -> None:
    first = await won(log, on_task("t"))
    assert await log.append(on_task("t")) == Conflict(first)
    assert await log.append(on_task("t", 7)) == Conflict(first)
    assert await log.append(on_task("other", 7)) == Conflict(0)
    assert (await log.state()).head == first


async def test_an_expectation_looks_at_its_own_subject_only(log: Log) -> None:
    await won(log, on_plan("p"))
    await won(log, on_task("t"))
    await won(log, on_task("u"))
    assert await log.append(on_plan("p", 0, PAUSED)) == Conflict(1)
    assert await log.append(on_plan("p", 1, PAUSED)) == Appended(4)


async def test_several_events_of_one_draft_follow_each_other_directly(log: Log) -> None:
    await won(log, on_plan("p"))
    last = await won(log, on_task("t", 0, CLAIMED, STARTED, Completed(owner="w1", attempt=1)))
    facts = await log.read("p", "t")
    assert [fact.sequence for fact in facts] == [last - 2, last - 1, last]
    assert [type(fact.event).__name__ for fact in facts if isinstance(fact, Fact)] == [
        "Claimed",
        "Started",
        "Completed",
    ]


async def test_several_events_of_one_draft_are_refused_together(log: Log) -> None:
    first = await won(log, on_task("t"))
    assert await log.append(on_task("t", 0, STARTED, STARTED)) == Conflict(first)
    assert len(await log.read("p", "t")) == 1


async def test_hundreds_of_appends_at_once_all_land_each_where_its_answer_says(log: Log) -> None:
    drafts = [on_task(f"t{i}", 0, CLAIMED, *([STARTED] * (i % 3))) for i in range(500)]
    outcomes = await all_of(log, *drafts)
    head = (await log.state()).head
    assert head == sum(len(draft.events) for draft in drafts)
    stood = {fact.sequence: fact for fact in await tail(log, 0, head)}
    for draft, outcome in zip(drafts, outcomes, strict=True):
        assert isinstance(outcome, Appended)
        for back, event in enumerate(reversed(draft.events)):
            fact = stood[outcome.sequence - back]
            assert isinstance(fact, Fact)
            assert (fact.task_id, fact.event) == (draft.task_id, event)


async def test_a_hot_subject_has_exactly_one_winner(log: Log) -> None:
    drafts = [on_task(f"hot{i % 5}") for i in range(300)]
    outcomes = await all_of(log, *drafts)
    for name in {draft.task_id for draft in drafts}:
        own = [o for d, o in zip(drafts, outcomes, strict=True) if d.task_id == name]
        (winner,) = [outcome for outcome in own if isinstance(outcome, Appended)]
        assert own.count(Conflict(winner.sequence)) == len(own) - 1
        assert len(await log.read("p", name)) == 1


async def test_losers_among_many_do_not_take_the_others_with_them(log: Log) -> None:
    taken = [on_task(f"taken{i}") for i in range(40)]
    where = await all_of(log, *taken)
    mixed = [*taken, *(on_task(f"free{i}") for i in range(120))]
    random.Random(7).shuffle(mixed)
    for draft, outcome in zip(mixed, await all_of(log, *mixed), strict=True):
        if draft in taken:
            stands = where[taken.index(draft)]
            assert isinstance(stands, Appended)
            assert outcome == Conflict(stands.sequence)
        else:
            assert isinstance(outcome, Appended)
    assert (await log.state()).head == 160


async def test_many_in_one_call_are_answered_in_order_each_for_itself(log: Log) -> None:
    stands = await won(log, on_task("taken"))
    large = Completed(owner="w1", attempt=1, output=Raw(b'"' + b"x" * 2 * MAX_PAYLOAD + b'"'))
    drafts = [on_task("a"), on_task("taken"), on_task("large", 0, large), on_task("b")]
    drafts += [on_task(f"t{number}") for number in range(100)]
    a, taken, too_large, b, *others = await log.append_all([*drafts, on_task("a")])
    assert isinstance(a, Appended)
    assert isinstance(b, Appended)
    assert taken == Conflict(stands)
    assert isinstance(too_large, TooLarge)
    assert others.pop() == Conflict(a.sequence)
    assert all(isinstance(each, Appended) for each in others)
    (fact,) = await log.read("p", "b")
    assert fact.sequence == b.sequence
    assert await log.append_all([]) == []
    assert (await log.state()).head == 103


async def test_a_chain_of_writers_on_one_subject_never_forks(log: Log) -> None:
    async def writer(wins: int) -> None:
        expected = 0
        while wins:
            match await log.append(on_task("t", expected)):
                case Appended(sequence):
                    wins, expected = wins - 1, sequence
                case Conflict(actual):
                    assert actual is not None
                    expected = actual

    async with asyncio.timeout(20):
        await asyncio.gather(*(writer(10) for _ in range(8)))
    assert len(await log.read("p", "t")) == 80


async def test_a_cancelled_caller_leaves_the_others_alone(log: Log) -> None:
    tasks = [asyncio.ensure_future(log.append(on_task(f"t{i}"))) for i in range(60)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, Appended) for outcome in outcomes[1::2])
    assert await log.append(on_task("after"))


async def test_following_while_others_append_skips_nothing_and_repeats_nothing(log: Log) -> None:
    await all_of(log, *(on_task(f"early{i}") for i in range(200)))
    starts = [0, 1, 57, 199, 200]
    tails = [asyncio.ensure_future(tail(log, after, 600)) for after in starts]
    for start in range(0, 400, 50):
        await all_of(log, *(on_task(f"t{i}") for i in range(start, start + 50)))
    for after, found in zip(starts, await asyncio.gather(*tails), strict=True):
        assert [fact.sequence for fact in found] == list(range(after + 1, 601))


async def test_following_at_the_head_waits_for_what_comes(log: Log) -> None:
    head = await won(log, on_plan("p"))
    async with aclosing(log.follow(head)) as batches:  # type: ignore[type-var]
        coming = asyncio.ensure_future(anext(batches))
        await won(log, on_task("t"))
        (fact,) = await asyncio.wait_for(coming, 10)
    assert fact.sequence == head + 1


async def test_a_position_beyond_the_head_belongs_to_another_log(log: Log) -> None:
    await won(log, on_plan("p"))
    with pytest.raises(LogReset):
        await tail(log, 2, 3)


async def test_a_log_made_anew_ends_the_tail_that_followed_the_old_one(world: World) -> None:
    await won(world.log, on_plan("p"))
    before = await world.log.state()
    async with aclosing(world.log.follow(0)) as batches:  # type: ignore[type-var]
        await anext(batches)
        coming = asyncio.ensure_future(anext(batches))
        await world.wipe()
        with pytest.raises(LogReset):
            await asyncio.wait_for(coming, 20)
    after = await world.log.state()
    assert after.head == 0
    assert after.epoch != before.epoch


async def test_reading_a_plan_gives_its_own_facts_and_its_tasks_in_order(log: Log) -> None:
    await won(log, on_plan("a"))
    await won(log, on_task("t", plan_id="a"))
    await won(log, on_plan("ab"))
    await won(log, on_task("t", plan_id="ab"))
    await won(log, on_task("u", plan_id="a"))
    await won(log, on_plan("a", 1, PAUSED))

    async def sequences(*args: str, **bounds: int) -> list[int]:
        return [fact.sequence for fact in await log.read(*args, **bounds)]

    assert await sequences("a") == [1, 2, 5, 6]
    assert await sequences("a", "t") == [2]
    assert await sequences("a", after=1) == [2, 5, 6]
    assert await sequences("a", after=2, up_to=5) == [5]
    assert await sequences("a", up_to=1) == [1]
    assert await sequences("ab", after=99) == []
    assert await sequences("nobody") == []


async def test_reading_goes_past_one_page(log: Log) -> None:
    await won(log, on_plan("p"))
    await all_of(log, *(on_task(f"t{i}", 0, *[CLAIMED] * 90) for i in range(70)))
    facts = await log.read("p")
    assert [fact.sequence for fact in facts] == list(range(1, 6302))


async def test_a_task_may_be_read_although_its_plan_has_no_fact(log: Log) -> None:
    await won(log, on_task("t"))
    assert [fact.sequence for fact in await log.read("p")] == [1]


async def test_the_first_of_a_plan_is_its_submission(log: Log) -> None:
    assert await log.first_of("p") is None
    await won(log, on_task("t"))
    await won(log, on_plan("p"))
    await won(log, on_plan("p", 2, PAUSED))
    first = await log.first_of("p")
    assert isinstance(first, Fact)
    assert (first.sequence, first.event, first.task_id) == (2, SUBMITTED, None)


async def test_a_fact_is_the_same_however_it_is_read(log: Log) -> None:
    origin = Origin(actor="ann é", instance="host:1:ab", traceparent="00-ab-cd-01")
    started = time.time()
    await log.append(
        Draft(plan_id="p", task_id=None, expected=0, events=(SUBMITTED,), origin=origin)
    )
    (read,) = await log.read("p")
    (followed,) = await tail(log, 0, 1)
    assert read == followed == await log.first_of("p")
    assert isinstance(read, Fact)
    assert read.origin == origin
    assert read.event_id
    assert started - 1 < read.at < time.time() + 1


async def test_a_client_supplied_name_cannot_add_a_header(log: Log) -> None:
    forger = Origin(actor="x\r\nNats-Msg-Id: stolen\r\n\r\n{}")
    await log.append(Draft(plan_id="p", task_id=None, expected=0, events=(PAUSED,), origin=forger))
    (fact,) = await log.read("p")
    assert isinstance(fact, Fact)
    assert fact.event_id != "stolen"
    assert fact.origin.actor.startswith("x")


async def test_the_state_tells_the_extent(log: Log) -> None:
    empty = await log.state()
    assert (empty.head, empty.size_bytes) == (0, 0)
    await won(log, on_plan("p"))
    await won(log, on_task("t"))
    state = await log.state()
    assert (state.first, state.head, state.epoch) == (1, 2, empty.epoch)
    assert state.size_bytes > 0


@pytest.mark.parametrize("ids", [("p.q", "t"), ("", "t"), ("p", "*"), ("p", ">"), ("p" * 65, "t")])
async def test_an_id_that_cannot_be_a_token_is_refused(log: Log, ids: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="not an id"):
        await log.append(on_task(ids[1], plan_id=ids[0]))
    with pytest.raises(ValueError, match="not an id"):
        await log.read(*ids)


async def test_a_fact_over_the_limit_is_refused_and_the_next_one_is_not(log: Log) -> None:
    big = Raw(b'"' + b"x" * 2 * MAX_PAYLOAD + b'"')
    with pytest.raises(TooLarge):
        await log.append(on_task("t", 0, Completed(owner="w1", attempt=1, output=big)))
    assert await won(log, on_task("t")) == 1


async def test_a_full_log_refuses_appends_and_keeps_what_it_has(
    make_world: Callable[[int], Awaitable[World]],
) -> None:
    log = (await make_world(400_000)).log
    filler = Completed(owner="w1", attempt=1, output=Raw(b'"' + b"x" * 10_000 + b'"'))
    drafts = [on_task(f"t{i}", 0, filler) for i in range(60)]
    outcomes = await asyncio.gather(*map(log.append, drafts), return_exceptions=True)
    written = [outcome for outcome in outcomes if isinstance(outcome, Appended)]
    full = [outcome for outcome in outcomes if isinstance(outcome, LogFull)]
    assert len(written) + len(full) == 60
    assert 20 <= len(written) < 40
    with pytest.raises(LogFull, match="full"):
        await log.append(on_task("more", 0, filler))
    assert len(await log.read("p")) == len(written)


@pytest.mark.parametrize(
    ("subject", "payload", "headers", "reason"),
    [
        ("plans.p", b"not json", {}, "JSON"),
        ("plans.p", b"", {}, "truncated"),
        ("plans.p", b"[]", {}, "object"),
        ("plans.p", b"\xff\xfe", {}, "JSON"),
        ("plans.p", b'{"event":"submitted","context":' + b"[" * 100_000, {}, "recursion"),
        ("plans.p", b'{"event":"invented"}', {}, "invented"),
        ("plans.p", b'{"event":"claimed","owner":"w","attempt":1,"lease_s":1}', {}, "of a plan"),
        ("plans.p.t", b'{"event":"paused"}', {}, "of a task"),
        ("plans.p.t.u", b'{"event":"paused"}', {}, "subject"),
        ("plans.p!", b'{"event":"paused"}', {}, "subject"),
        ("plans." + "p" * 65, b'{"event":"paused"}', {}, "subject"),
        ("plans.p", b'{"event":"submitted","tasks":[{"id":"a b","kind":"k"}]}', {}, "'a b'"),
        ("plans.p", b'{"event":"submitted"}', {}, "tasks"),
        ("plans.p", b'{"event":"paused"}', {"Holdfast-Schema": "one"}, "'one'"),
        ("plans.p", b'{"event":"paused"}', {"Holdfast-Schema": "1"}, "unnamed"),
        (
            "plans.p",
            b'{"event":"paused"}',
            {"Holdfast-Event": "plan.paused", "Holdfast-Schema": "99"},
            "version 99",
        ),
    ],
)
async def test_what_cannot_be_read_is_stepped_over_with_the_reason(
    world: World, subject: str, payload: bytes, headers: dict[str, str], reason: str
) -> None:
    await world.publish(subject, payload, headers)
    await won(world.log, on_plan("good"))
    bad, good = await tail(world.log, 0, 2)
    assert isinstance(bad, BadFact)
    assert (bad.sequence, bad.subject) == (1, subject)
    assert reason in bad.reason
    assert isinstance(good, Fact)


async def test_a_good_message_by_hand_is_a_fact(world: World) -> None:
    await world.publish("plans.p", b'{"event":"paused","reason":"by hand"}', {})
    (fact,) = await world.log.read("p")
    assert isinstance(fact, Fact)
    assert fact.event_id == ""
    assert await world.log.append(on_plan("p")) == Conflict(1)


async def test_a_closed_log_does_not_answer(log: Log) -> None:
    await log.close()
    with pytest.raises(LogUnavailable):
        await log.append(on_plan("p"))
