"""Group commit against a log whose answers the test chooses."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import pytest

from streams.codec import HEADER_LINE, MESSAGE_ID, split_headers
from streams.jetstream.drafts import BATCH_BYTES, BATCH_MESSAGES, AppenderLimits, EventIds
from streams.jetstream.group_commit import SINGLES, TURN, Appender
from streams.jetstream.refusals import TOO_LARGE, WRONG_SEQUENCE, WRONG_SEQUENCE_IN_FLIGHT
from streams.jetstream.transport import Found, Message, Stored, Unknown, WriteAnswer, WriteRefused
from streams.log import Appended, Conflict, Draft, LogFull, LogUnavailable, TooLarge
from streams.plan.events import Completed, Heartbeat, Raw, Started

STARTED = Started(owner="w1", attempt=1)

Fault = Callable[[Sequence[Message]], WriteAnswer | None]


class FakeLog:
    """Stores messages as the stream would; `faults` are asked first, each once, in order.

    Nothing is answered before `answer` is called, unless `prompt` is set.
    """

    def __init__(self) -> None:
        self.stored: list[tuple[str, str]] = []
        self.sent: list[Sequence[Message]] = []
        self.patience: list[float] = []
        self.faults: list[Fault] = []
        self.prompt = True
        self.is_up = True
        self.defects: list[Exception] = []
        self.lag: dict[str, int] = {}
        self.old_leader_answers = 0  # to how many questions for a message it shows none
        self._waiting: list[tuple[Sequence[Message], asyncio.Future[WriteAnswer]]] = []

    @property
    def connected(self) -> bool:
        return self.is_up

    @property
    def down_s(self) -> float:
        return 0.0 if self.is_up else 1.0

    @property
    def max_payload(self) -> int:
        return 1024 * 1024

    async def until_connected(self, timeout_s: float) -> bool:
        del timeout_s
        await asyncio.sleep(0)
        return self.is_up

    def publish(self, messages: Sequence[Message], timeout_s: float) -> asyncio.Future[WriteAnswer]:
        if self.defects:
            raise self.defects.pop()
        self.patience.append(timeout_s)
        self.sent.append(messages)
        answer: asyncio.Future[WriteAnswer] = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, answer))
        if self.prompt:
            asyncio.get_running_loop().call_soon(self.answer)
        return answer

    def answer(self) -> None:
        """Answer what was sent first."""
        messages, answer = self._waiting.pop(0)
        fault = self.faults.pop(0)(messages) if self.faults else None
        answer.set_result(fault or self.store(messages))

    async def first_after(self, subject: str, sequence: int, timeout_s: float) -> Found | None:
        assert timeout_s > 0
        if self.old_leader_answers:
            self.old_leader_answers -= 1
            return None
        for place, (stands, event_id) in enumerate(self.stored, 1):
            if stands == subject and place > sequence:
                return Found(place, event_id)
        return None

    async def last_of(self, subjects: Sequence[str]) -> Mapping[str, int]:
        return {subject: self.lag.get(subject, self.last(subject)) for subject in subjects}

    def last(self, subject: str) -> int:
        return max(
            (n for n, (stands, _) in enumerate(self.stored, 1) if stands == subject), default=0
        )

    def store(self, messages: Sequence[Message]) -> WriteAnswer:
        for message in messages:
            actual = self.last(message.subject)
            if message.expected not in (None, actual):
                return WriteRefused(WRONG_SEQUENCE, f"wrong last sequence: {actual}")
        for message in messages:
            self.stored.append((message.subject, id_of(message)))
        return Stored(len(self.stored))


def id_of(message: Message) -> str:
    return split_headers(HEADER_LINE + message.lines)[MESSAGE_ID].decode()


def answered(answer: WriteAnswer) -> Fault:
    return lambda _: answer


def landed_but(log: FakeLog, answer: WriteAnswer) -> Fault:
    """It is stored, and the answer does not tell."""

    def fault(messages: Sequence[Message]) -> WriteAnswer:
        log.store(messages)
        return answer

    return fault


class Heard:
    """Counts what the appender says."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.facts = 0
        self.conflicts = 0
        self.failed: list[str] = []

    def appended(self, count: int, batch_size: int, duration_s: float) -> None:
        assert duration_s >= 0
        self.facts += count
        self.batches.append(batch_size)

    def append_failed(self, kind: str) -> None:
        self.failed.append(kind)

    def conflicted(self) -> None:
        self.conflicts += 1


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def appender(log: FakeLog, heard: Heard) -> AsyncIterator[Appender]:
    made = Appender(log, limits=AppenderLimits(budget_s=0.2, max_waiting=3_000), observer=heard)
    yield made
    await made.close()


def draft(task_id: str, expected: int = 0, count: int = 1) -> Draft:
    return Draft(plan_id="p", task_id=task_id, expected=expected, events=(STARTED,) * count)


async def gather(appender: Appender, *drafts: Draft) -> list[Appended | Conflict]:
    return await asyncio.gather(*map(appender.append, drafts))


async def settled(log: FakeLog, sent: int) -> None:
    """Wait until so much has been sent."""
    async with asyncio.timeout(20):
        while len(log.sent) < sent:
            await asyncio.sleep(0)


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
        appends += [asyncio.ensure_future(appender.append(draft(f"{lot}{i}"))) for i in range(size)]
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


async def test_a_large_lot_is_answered_in_turns(appender: Appender, log: FakeLog) -> None:
    log.prompt = False
    appends = [asyncio.ensure_future(appender.append(draft(f"t{i}"))) for i in range(3 * TURN)]
    await settled(log, 1)
    log.answer()
    seen: set[int] = set()
    while not all(append.done() for append in appends):
        await asyncio.sleep(0)
        seen.add(sum(append.done() for append in appends))
    assert seen >= {TURN, 2 * TURN, 3 * TURN}


async def test_singles_in_flight_are_bounded(appender: Appender, log: FakeLog) -> None:
    log.prompt = False
    first = [asyncio.ensure_future(appender.append(draft(f"a{i}"))) for i in range(SINGLES)]
    await settled(log, SINGLES)
    more = [asyncio.ensure_future(appender.append(draft(f"b{i}"))) for i in range(5)]
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


def test_event_ids_are_never_given_twice() -> None:
    ids = EventIds(), EventIds()
    assert len({each.next() for each in ids for _ in range(1_000)}) == 2_000
