"""How drafts are sent: singly or in batches, in what order, and with what headers."""

import asyncio
from collections import Counter

from streams.jetstream.drafts import BATCH_BYTES, BATCH_MESSAGES
from streams.jetstream.group_commit import SINGLES, TURN, Appender
from streams.log import Appended, Conflict, Draft
from streams.plan.events import Completed, Heartbeat, Raw
from tests.unit.appender.appends import begin, draft, gather, settled
from tests.unit.appender.fake_log import STARTED, FakeLog, Heard, id_of

# How they are sent.


async def test_one_caller_alone_sends_one_message(appender: Appender, log: FakeLog) -> None:
    assert await appender.append(draft("t")) == Appended(1)
    assert [len(sent) for sent in log.sent] == [1]


async def test_few_go_singly_and_many_as_one_batch(appender: Appender, log: FakeLog) -> None:
    await gather(appender, *(draft(f"a{i}") for i in range(SINGLES)))
    assert [len(sent) for sent in log.sent] == [1] * SINGLES
    log.sent.clear()
    await gather(appender, *(draft(f"b{i}") for i in range(SINGLES + 1)))
    assert [len(sent) for sent in log.sent] == [SINGLES + 1]


async def test_while_two_batches_are_on_their_way_the_next_one_gathers(
    appender: Appender, log: FakeLog
) -> None:
    log.prompt = False
    appends: list[asyncio.Future[Appended | Conflict]] = []
    for lot, size in (("a", 20), ("b", 20), ("c", 15), ("d", 15)):
        appends += begin(appender, lot, size)
        for _ in range(5):
            await asyncio.sleep(0)
    assert [len(sent) for sent in log.sent] == [20, 20]
    log.answer()
    await settled(log, 3)
    assert [len(sent) for sent in log.sent] == [20, 20, 30]
    log.answer()
    log.answer()
    answers = await asyncio.gather(*appends)
    assert [each.sequence for each in answers if isinstance(each, Appended)] == [*range(1, 71)]


async def test_drafts_that_are_held_go_before_the_batch_is_answered(
    appender: Appender, log: FakeLog
) -> None:
    log.prompt = False
    appends = begin(appender, "a", 20)
    await settled(log, 1)
    await asyncio.sleep(0.1)  # what a batch takes, then
    log.answer()
    await asyncio.gather(*appends)
    appends = begin(appender, "b", 20)
    await settled(log, 2)
    appends += begin(appender, "c", 20)
    await settled(log, 3)
    assert [len(sent) for sent in log.sent] == [20, 20, 20]
    log.answer()
    log.answer()
    assert all(isinstance(o, Appended) for o in await asyncio.gather(*appends))


async def test_a_large_lot_is_answered_in_turns(appender: Appender, log: FakeLog) -> None:
    log.prompt = False
    appends = begin(appender, "t", 3 * TURN)
    await settled(log, 1)
    log.answer()
    seen: set[int] = set()
    while not all(append.done() for append in appends):
        await asyncio.sleep(0)
        seen.add(sum(append.done() for append in appends))
    assert seen >= {TURN, 2 * TURN, 3 * TURN}


async def test_singles_in_flight_are_bounded(appender: Appender, log: FakeLog) -> None:
    log.prompt = False
    first = begin(appender, "a", SINGLES)
    await settled(log, SINGLES)
    more = begin(appender, "b", 5)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(log.sent) == SINGLES
    log.prompt = True
    for _ in range(SINGLES):
        log.answer()
    assert all(isinstance(o, Appended) for o in await asyncio.gather(*first, *more))


async def test_closed_loops_of_many_callers_end_up_in_batches(
    appender: Appender, heard: Heard
) -> None:
    async def caller(name: int) -> None:
        for turn in range(20):
            await appender.append(draft(f"t{name}-{turn}"))

    await asyncio.gather(*map(caller, range(64)))
    assert heard.facts == 64 * 20
    assert sum(heard.batches) / len(heard.batches) > 32


async def test_a_batch_is_bounded_in_messages(appender: Appender, log: FakeLog) -> None:
    await gather(appender, *(draft(f"t{i}") for i in range(2 * BATCH_MESSAGES + 1)))
    assert max(len(sent) for sent in log.sent) == BATCH_MESSAGES


async def test_a_batch_is_bounded_in_bytes(appender: Appender, log: FakeLog) -> None:
    large = Completed(owner="w", attempt=1, output=Raw(b'"' + b"x" * (BATCH_BYTES // 8) + b'"'))
    drafts = [Draft(plan_id="p", task_id=f"t{i}", expected=0, events=(large,)) for i in range(32)]
    await gather(appender, *drafts)
    assert max(len(sent) for sent in log.sent) == 7


async def test_a_subject_stands_in_a_batch_once(appender: Appender, log: FakeLog) -> None:
    outcomes = await gather(appender, *(draft(f"t{i % 20}") for i in range(60)))
    assert Counter(map(type, outcomes)) == {Appended: 20, Conflict: 40}
    for sent in log.sent:
        assert len({message.subject for message in sent}) == len(sent)


async def test_a_draft_behind_another_is_sent_when_it_may_still_win(
    appender: Appender, log: FakeLog
) -> None:
    outcomes = await gather(appender, draft("t"), draft("t", 1), draft("t"))
    assert outcomes == [Appended(1), Appended(2), Conflict(2)]
    assert len(log.sent) == 2


async def test_only_the_first_event_of_a_draft_carries_the_expectation(
    appender: Appender, log: FakeLog
) -> None:
    assert await appender.append(draft("t", 0, 3)) == Appended(3)
    (sent,) = log.sent
    assert [message.expected for message in sent] == [0, None, None]
    assert len({id_of(message) for message in sent}) == 3


async def test_a_cancelled_draft_that_still_waits_is_not_sent(
    appender: Appender, log: FakeLog
) -> None:
    appender.append(draft("t")).cancel()
    assert await appender.append(draft("t")) == Appended(1)
    assert len(log.sent) == 1


async def test_chatter_carries_its_time_to_live(appender: Appender, log: FakeLog) -> None:
    beat = Heartbeat(owner="w", attempt=1, lease_s=1)
    await appender.append(Draft(plan_id="p", task_id="t", expected=0, events=(STARTED, beat)))
    assert [b"Nats-TTL: 86400s\r\n" in message.lines for message in log.sent[0]] == [False, True]


async def test_a_draft_may_shorten_the_time_to_live_of_its_chatter(
    appender: Appender, log: FakeLog
) -> None:
    probe = Heartbeat(owner="w1", attempt=1, lease_s=1)
    await appender.append(
        Draft(plan_id="p", task_id="t", expected=0, events=(probe,), chatter_ttl_s=1)
    )
    assert b"Nats-TTL: 1s" in log.sent[0][0].lines


async def test_event_ids_are_never_given_twice(appender: Appender, log: FakeLog) -> None:
    others = Appender(log)
    for each in (appender, others):
        await gather(each, *(draft(f"t{i}", count=2) for i in range(500)))
    ids = [id_of(message) for sent in log.sent for message in sent]
    own = [event_id for event_id in ids if appender.wrote(event_id)]
    assert len(set(ids)) == len(ids) == 2_000
    assert len(own) == 1_000
    await others.close()
