"""A server that stalls, dies or answers nonsense: no append is lost, doubled or left waiting."""

import asyncio
import time
from collections import Counter

import pytest

from streams.jetstream.drafts import AppenderLimits
from streams.jetstream.log import JetStreamLog
from streams.jetstream.messages import Delivery, render
from streams.log import (
    Appended,
    Conflict,
    Fact,
    LogUnavailable,
)
from tests.busy import stretch
from tests.conftest import PrivateServer
from tests.contract.drafts import STARTED, all_of, on_plan, on_task, won
from tests.contract.jetstream.world import (
    LIMITS,
    Open,
)
from tests.contract.wire import PassOn, Wire
from tests.waiting import eventually

# Unknown outcomes.


@pytest.mark.parametrize("count", [1, 5, 100])
async def test_a_server_that_stalls_past_the_time_out_stores_every_draft_once(
    log: JetStreamLog, private_nats: PrivateServer, count: int
) -> None:
    await won(log, on_plan("p"))
    private_nats.pause()
    started = time.monotonic()
    drafts = [on_task(f"t{i}", 0, *([STARTED] * (1 + i % 2))) for i in range(count)]
    appends = [asyncio.ensure_future(log.append(draft)) for draft in drafts]
    await eventually(lambda: time.monotonic() > started + 3 * LIMITS.try_s)
    assert not any(append.done() for append in appends)
    private_nats.resume()
    for draft, outcome in zip(drafts, await asyncio.gather(*appends), strict=True):
        assert isinstance(outcome, Appended)
        facts = await log.read("p", draft.task_id)
        assert len(facts) == len(draft.events)
        assert facts[-1].sequence == outcome.sequence


async def test_an_append_that_landed_is_ours_although_others_wrote_after_it(
    log: JetStreamLog, private_nats: PrivateServer, connect: Open
) -> None:
    other = await connect(private_nats)
    private_nats.pause()
    ours = asyncio.ensure_future(log.append(on_task("t")))
    started = time.monotonic()
    await eventually(lambda: time.monotonic() > started + 2 * LIMITS.try_s)

    async def rival() -> Appended:
        # Knows the sequence that ours will have, and writes on top of it as soon as it can.
        while True:
            outcome = await other.append(on_task("t", 1, STARTED))
            if isinstance(outcome, Appended):
                return outcome

    following = asyncio.ensure_future(rival())
    private_nats.resume()
    assert await ours == Appended(1)
    assert await following == Appended(2)
    assert len(await log.read("p", "t")) == 2


async def test_a_race_lost_during_a_stall_is_a_conflict(
    log: JetStreamLog, private_nats: PrivateServer, connect: Open
) -> None:
    other = await connect(private_nats)
    private_nats.pause()
    outcomes = asyncio.gather(*(each.append(on_task("t")) for each in (log, other)))
    started = time.monotonic()
    await eventually(lambda: time.monotonic() > started + 2 * LIMITS.try_s)
    private_nats.resume()
    assert Counter(map(type, await outcomes)) == {Appended: 1, Conflict: 1}
    assert len(await log.read("p", "t")) == 1


@pytest.mark.parametrize("writers", [4, 64])
async def test_killing_the_server_under_load_loses_nothing_and_doubles_nothing(
    log: JetStreamLog, private_nats: PrivateServer, writers: int
) -> None:
    acknowledged: dict[str, int] = {}
    done = False

    async def writer(name: int) -> None:
        count = 0
        while not done:
            count += 1
            outcome = await log.append(on_task(f"t{name}-{count}"))
            assert isinstance(outcome, Appended)  # no other client writes here
            acknowledged[f"t{name}-{count}"] = outcome.sequence

    load = [asyncio.ensure_future(writer(name)) for name in range(writers)]
    for _ in range(3):
        enough = len(acknowledged) + 10 * writers
        await eventually(lambda enough=enough: len(acknowledged) >= enough)
        private_nats.kill()
        await asyncio.to_thread(private_nats.restart)
    enough = len(acknowledged) + writers
    await eventually(lambda: len(acknowledged) >= enough)
    done = True
    await asyncio.gather(*load)
    stored = {fact.task_id: fact.sequence for fact in await log.read("p") if isinstance(fact, Fact)}
    assert stored == acknowledged
    assert (await log.state()).head == len(acknowledged)


async def test_a_server_that_is_gone_is_reported_within_the_grace_and_heals_by_itself(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    await won(log, on_plan("p"))
    private_nats.kill()
    await eventually(lambda: not log.connected)
    started = time.monotonic()
    with pytest.raises(LogUnavailable):
        await log.append(on_task("t"))
    assert time.monotonic() - started < (LIMITS.grace_s + 1) * stretch()
    with pytest.raises(LogUnavailable):
        await log.read("p")
    with pytest.raises(LogUnavailable):
        await log.state()
    assert log.last_error
    await asyncio.to_thread(private_nats.restart)
    await eventually(lambda: log.connected)
    assert await log.append(on_task("t")) == Appended(2)
    assert log.last_error is None
    assert log.reconnects == 1


@pytest.mark.parametrize("count", [1, 30])
async def test_a_leader_that_shows_less_than_was_acknowledged_is_not_believed(
    log: JetStreamLog, wire: Wire, count: int
) -> None:
    await all_of(log, *(on_task(f"t{i}") for i in range(count)))

    def old(deliver: PassOn, message: Delivery) -> None:
        subject, reply, headers, payload = message
        shown = payload.replace(b'"last_seq":%d' % count, b'"last_seq":%d' % (count - 1))
        deliver(subject, reply, headers, shown)

    wire.answering = old
    with pytest.raises(LogUnavailable, match=f"sequence {count - 1}, below {count}"):
        await log.state()


async def test_an_answer_that_cannot_be_read_leaves_no_append_waiting(
    log: JetStreamLog, wire: Wire
) -> None:
    """Neither one that is no JSON nor one of another shape: what became of it is found out."""
    garbage = [b"{", b'{"seq":"one"}', b"\xff", b'{"seq":' + b"[" * 5_000]

    def garbled(deliver: PassOn, message: Delivery) -> None:
        subject, reply, headers, payload = message
        known = b'"stream":"PLANS"' in payload and b'"seq"' in payload
        deliver(subject, reply, headers, garbage.pop() if known and garbage else payload)

    wire.answering = garbled
    for count in range(1, 5):
        assert await log.append(on_plan(f"p{count}")) == Appended(count)
    assert not garbage


async def test_too_many_waiting_writes_are_turned_away(
    connect: Open, private_nats: PrivateServer
) -> None:
    log = await connect(private_nats, limits=AppenderLimits(max_waiting=10))
    drafts = [on_task(f"t{i}") for i in range(30)]
    outcomes = await asyncio.gather(*map(log.append, drafts), return_exceptions=True)
    assert Counter(map(type, outcomes)) == {Appended: 10, LogUnavailable: 20}


async def test_a_connection_that_the_server_closes_is_made_again(
    log: JetStreamLog, wire: Wire
) -> None:
    # nats-py alone would close for ever at "Maximum Payload Violation".
    wire.clients[0].write(render(b"plans.p", b"", b"", b"x" * 3_000_000))
    await eventually(lambda: log.reconnects == 1)
    assert isinstance(await log.append(on_plan("q")), Appended)


async def test_no_server_at_the_start_is_a_clear_bounded_failure() -> None:
    started = time.monotonic()
    with pytest.raises(
        LogUnavailable, match=r"no NATS server at nats://127\.0\.0\.1:9 within 0\.5 s"
    ):
        await JetStreamLog.connect("nats://127.0.0.1:9", connect_timeout_s=0.5)
    assert time.monotonic() - started < 2 * stretch()
