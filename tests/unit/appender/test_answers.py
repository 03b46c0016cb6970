"""What the answers of the log mean, and what follows when there is none."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from streams.jetstream.drafts import AppenderLimits
from streams.jetstream.group_commit import Appender
from streams.jetstream.refusals import TOO_LARGE, WRONG_SEQUENCE, WRONG_SEQUENCE_IN_FLIGHT
from streams.jetstream.transport import Message, Unknown, WriteAnswer, WriteRefused
from streams.log import Appended, Conflict, LogFull, LogUnavailable, TooLarge
from tests.unit.appender.appends import draft, gather, settled
from tests.unit.appender.fake_log import FakeLog, Heard, answered, id_of, landed_but

# What the answers mean.


async def test_a_refused_single_is_a_conflict(
    appender: Appender, log: FakeLog, heard: Heard
) -> None:
    log.faults = [answered(WriteRefused(WRONG_SEQUENCE, "wrong last sequence: 9"))]
    assert await appender.append(draft("t")) == Conflict(9)
    assert heard.conflicts == 1


async def test_a_conflict_with_a_write_in_flight_cannot_name_a_sequence(
    appender: Appender, log: FakeLog
) -> None:
    log.faults = [answered(WriteRefused(WRONG_SEQUENCE_IN_FLIGHT, "wrong last sequence"))]
    assert await appender.append(draft("t")) == Conflict(None)


async def test_losers_of_a_batch_are_answered_and_the_rest_is_sent_again(
    appender: Appender, log: FakeLog
) -> None:
    log.stored = [("plans.p.t3", "x"), ("plans.p.t5", "y")]
    outcomes = await gather(appender, *(draft(f"t{i}") for i in range(20)))
    assert outcomes[3] == Conflict(1)
    assert outcomes[5] == Conflict(2)
    assert sum(isinstance(outcome, Appended) for outcome in outcomes) == 18
    assert [len(sent) for sent in log.sent] == [20, 18]


async def test_a_lagging_replica_makes_no_append_a_loser(appender: Appender, log: FakeLog) -> None:
    # It knows neither the message that t0 lost to nor the one that t1 rightly expects.
    log.stored = [("plans.p.t0", "x"), ("plans.p.t1", "y")]
    log.lag = {"plans.p.t0": 0, "plans.p.t1": 0}
    drafts = [draft("t0"), draft("t1", 2), *(draft(f"t{i}") for i in range(2, 20))]
    outcomes = await gather(appender, *drafts)
    assert outcomes[0] == Conflict(1)
    assert all(isinstance(outcome, Appended) for outcome in outcomes[1:])


@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("events", [1, 3])
async def test_what_landed_unheard_is_ours(
    appender: Appender, log: FakeLog, count: int, events: int
) -> None:
    log.faults = [landed_but(log, Unknown("time-out"))] * count
    outcomes = await gather(appender, *(draft(f"t{i}", 0, events) for i in range(count)))
    assert len(log.stored) == count * events
    for i, outcome in enumerate(outcomes):
        assert outcome == Appended(log.last(f"plans.p.t{i}"))


async def test_what_landed_unheard_is_looked_up_and_not_sent_again(
    appender: Appender, log: FakeLog
) -> None:
    log.faults = [landed_but(log, Unknown("time-out"))]
    await gather(appender, *(draft(f"t{i}") for i in range(40)))
    assert len(log.sent) == 1


async def test_what_landed_unheard_is_ours_although_an_old_leader_does_not_show_it(
    appender: Appender, log: FakeLog
) -> None:
    """Else the claim of an owner would be reported as lost, and its lease be left to time out."""
    log.faults = [landed_but(log, Unknown("time-out"))]
    log.old_leader_answers = 4
    assert await appender.append(draft("t")) == Appended(1)
    assert len(log.stored) == 1


async def test_what_landed_unheard_is_counted_as_written(
    appender: Appender, log: FakeLog, heard: Heard
) -> None:
    log.faults = [landed_but(log, Unknown("time-out"))]
    await appender.append(draft("a", count=2))
    assert (heard.facts, heard.batches, heard.failed) == (2, [2], [])


async def test_a_slow_log_is_asked_more_and_more_patiently(log: FakeLog) -> None:
    appender = Appender(log, limits=AppenderLimits(try_s=0.1, budget_s=10))
    log.faults = [answered(Unknown("time-out"))] * 4
    assert await appender.append(draft("t")) == Appended(1)
    first, *alone = log.patience
    assert first == pytest.approx(0.1)
    assert alone == [pytest.approx(0.1 * 2**n) for n in range(4)]


@pytest.mark.parametrize("count", [1, 5, 40])
async def test_what_did_not_land_is_sent_again_with_the_same_ids(
    appender: Appender, log: FakeLog, count: int
) -> None:
    log.faults = [answered(Unknown("time-out"))]
    outcomes = await gather(appender, *(draft(f"t{i}") for i in range(count)))
    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    ids = Counter(id_of(message) for sent in log.sent for message in sent)
    assert len(ids) == len(log.stored) == count


async def test_what_landed_unheard_is_ours_although_others_wrote_after_it(
    appender: Appender, log: FakeLog
) -> None:
    def fault(messages: Sequence[Message]) -> WriteAnswer:
        log.store(messages)
        log.stored.append(("plans.p.t", "somebody else's"))
        return Unknown("time-out")

    log.faults = [fault]
    assert await appender.append(draft("t")) == Appended(1)


async def test_a_race_lost_unheard_is_a_conflict(appender: Appender, log: FakeLog) -> None:
    def fault(messages: Sequence[Message]) -> WriteAnswer:
        log.stored.append((messages[0].subject, "somebody else's"))
        return Unknown("time-out")

    log.faults = [fault]
    assert await appender.append(draft("t")) == Conflict(1)


async def test_our_own_write_still_in_flight_is_not_taken_for_a_rival(
    appender: Appender, log: FakeLog
) -> None:
    in_flight = WriteRefused(WRONG_SEQUENCE_IN_FLIGHT, "wrong last sequence")
    # Refused because it is in flight, and not yet to be seen: asking once more shows it.
    log.faults = [answered(Unknown("time-out")), answered(in_flight), landed_but(log, in_flight)]
    assert await appender.append(draft("t")) == Appended(1)


async def test_a_budget_that_is_spent_says_unavailable(
    appender: Appender, log: FakeLog, heard: Heard
) -> None:
    log.faults = [answered(Unknown("time-out"))] * 1_000
    with pytest.raises(LogUnavailable, match="time-out"):
        await appender.append(draft("t"))
    assert heard.failed == ["unavailable"]
    log.faults.clear()
    assert await appender.append(draft("t")) == Appended(1)


async def test_without_a_connection_nothing_is_sent(appender: Appender, log: FakeLog) -> None:
    log.is_up = False
    with pytest.raises(LogUnavailable):
        await appender.append(draft("t"))
    assert log.sent == []


async def test_a_full_log_and_a_large_fact_have_names(
    appender: Appender, log: FakeLog, heard: Heard
) -> None:
    full = answered(WriteRefused(10077, "maximum bytes exceeded"))
    log.faults = [full, full]
    with pytest.raises(LogFull):
        await appender.append(draft("t"))
    large = answered(WriteRefused(TOO_LARGE, "message size exceeds maximum allowed"))
    log.faults = [large, large]
    with pytest.raises(TooLarge):
        await appender.append(draft("t"))
    assert heard.failed == ["full", "too_large"]


async def test_a_crowd_is_turned_away(log: FakeLog, heard: Heard) -> None:
    appender = Appender(log, limits=AppenderLimits(max_waiting=2), observer=heard)
    drafts = [draft(f"t{i}") for i in range(3)]
    outcomes = await asyncio.gather(*map(appender.append, drafts), return_exceptions=True)
    assert isinstance(outcomes[2], LogUnavailable)
    assert "2 writes are waiting" in str(outcomes[2])
    assert heard.failed == ["crowded"]
    assert isinstance(await appender.append(draft("later")), Appended)


async def test_waiting_writes_are_bounded_in_bytes(log: FakeLog, heard: Heard) -> None:
    limits = AppenderLimits(max_waiting_bytes=600)
    appender = Appender(log, limits=limits, observer=heard)
    drafts = [draft(f"t{i}") for i in range(20)]
    outcomes = await asyncio.gather(*map(appender.append, drafts), return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, LogUnavailable)]
    assert "bytes are waiting" in str(refused[0])
    assert 1 <= len(outcomes) - len(refused) <= 4
    assert set(heard.failed) == {"crowded"}
    for n in range(20):  # what has been written makes room again
        assert isinstance(await appender.append(draft(f"later{n}")), Appended)


@pytest.mark.parametrize("callers", [1, 40])
async def test_after_a_defect_of_the_connection_every_caller_gets_an_outcome(
    appender: Appender, log: FakeLog, callers: int
) -> None:
    log.defects = [RuntimeError("the transport is closing")]
    answers = await asyncio.gather(*(appender.append(draft(f"t{n}")) for n in range(callers)))
    assert all(isinstance(answer, Appended) for answer in answers)
    assert len(log.stored) == callers


async def test_closing_gives_every_waiting_caller_an_error(
    appender: Appender, log: FakeLog
) -> None:
    log.prompt = False
    appends = [asyncio.ensure_future(appender.append(draft(f"t{i % 9}"))) for i in range(40)]
    await settled(log, 1)
    await appender.close()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes)
