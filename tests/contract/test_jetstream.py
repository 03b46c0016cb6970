"""What only the real log can get wrong: servers that stall, die, vanish, or were changed."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import msgspec
import nats
import pytest
from msgspec.structs import replace

from streams.jetstream.audit_stream import TrailEntry
from streams.jetstream.connection import Connection
from streams.jetstream.consumer import parse_reply
from streams.jetstream.drafts import AppenderLimits
from streams.jetstream.log import JetStreamLog
from streams.jetstream.messages import Deliver, Reply, render
from streams.jetstream.reader import Reader
from streams.jetstream.tail import SILENCE_S
from streams.log import (
    Appended,
    Conflict,
    Fact,
    LogFull,
    LogReset,
    LogUnavailable,
    TopologyMismatch,
)
from streams.plan.events import Completed, Heartbeat, Progress, Raw
from streams.subjects import audit_subject
from tests.busy import stretch
from tests.conftest import PrivateServer
from tests.contract.drafts import STARTED, all_of, on_plan, on_task, tail, won
from tests.contract.wire import Message, Wire, ask
from tests.waiting import eventually

MAX_PAYLOAD = 2 * 1024 * 1024  # of nats.conf
LIMITS = AppenderLimits(budget_s=15, try_s=0.3, grace_s=0.5)

Open = Callable[..., Awaitable[JetStreamLog]]


@pytest.fixture
async def connect(start_nats: Callable[..., PrivateServer]) -> AsyncIterator[Open]:
    del start_nats  # its servers must outlive our connections
    opened: list[JetStreamLog] = []

    async def connect(server: PrivateServer, **options: object) -> JetStreamLog:
        log = await JetStreamLog.connect(server.url, **{"limits": LIMITS, **options})  # type: ignore[arg-type]
        opened.append(log)
        return log

    yield connect
    for log in opened:
        await log.close()


@pytest.fixture
async def log(connect: Open, private_nats: PrivateServer, wire: Wire) -> JetStreamLog:
    del wire  # it sees all that the log sends
    return await connect(private_nats)


async def consumers(server: PrivateServer) -> list[str]:
    answer = await ask(server.url, "CONSUMER.NAMES.PLANS")
    return msgspec.json.decode(answer)["consumers"] or []


async def stored(server: PrivateServer, subject: str) -> list[Reply]:
    """The raw messages on ``subject`` (a filter)."""

    async def alone() -> bool:
        return False

    connection = await Connection.open(server.url, name="test", timeout_s=5)
    replies = await Reader(connection, "PLANS", alone).messages(subject, 1, 100)
    await connection.close()
    return replies


# Bounds.

STORE = "jetstream { sync_interval: always, max_memory_store: 64MB, max_file_store: %s }\n"
ACCOUNT = """
accounts { A { jetstream: { max_file: 2MB, max_mem: 16MB }, users: [{ user: a, password: a }] } }
no_auth_user: a
"""


@pytest.mark.parametrize(
    ("limits", "code"), [(STORE % "2MB", "insufficient"), (STORE % "1GB" + ACCOUNT, "exceeded")]
)
async def test_a_server_or_an_account_that_is_full_is_a_full_log(
    connect: Open, start_nats: Callable[..., PrivateServer], tmp_path: Path, limits: str, code: str
) -> None:
    configuration = tmp_path / "bounded.conf"
    configuration.write_text(f"host: 127.0.0.1\nmax_payload: 2MB\n{limits}")
    log = await connect(start_nats(configuration))
    filler = Completed(owner="w1", attempt=1, output=Raw(b'"' + b"x" * 100_000 + b'"'))
    drafts = [on_task(f"t{i}", 0, filler) for i in range(40)]
    outcomes = await asyncio.gather(*map(log.append, drafts), return_exceptions=True)
    assert any(isinstance(outcome, Appended) for outcome in outcomes)
    with pytest.raises(LogFull, match=code):
        await log.append(on_task("more", 0, filler))


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


async def test_an_answer_that_cannot_be_read_leaves_no_append_waiting(
    log: JetStreamLog, wire: Wire
) -> None:
    """Neither one that is no JSON nor one of another shape: what became of it is found out."""
    garbage = [b"{", b'{"seq":"one"}', b"\xff", b'{"seq":' + b"[" * 5_000]

    def garbled(deliver: Deliver, message: Message) -> None:
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


# Following.


async def test_a_tail_goes_on_across_restarts_of_the_server(
    connect: Open, private_nats: PrivateServer
) -> None:
    # On a busy machine the client may need a while to come back.
    log = await connect(private_nats, limits=replace(LIMITS, grace_s=15))
    # Less than the silence after which a tail would start anew of its own accord.
    following = asyncio.ensure_future(tail(log, 0, 400, within_s=SILENCE_S - 1))
    for start in range(0, 400, 100):
        outcomes = await all_of(log, *(on_task(f"t{i}") for i in range(start, start + 100)))
        assert all(isinstance(outcome, Appended) for outcome in outcomes)
        if start < 300:
            private_nats.kill()
            await asyncio.to_thread(private_nats.restart)
    assert [fact.sequence for fact in await following] == list(range(1, 401))
    assert log.reconnects == 3


async def test_a_tail_whose_consumer_is_deleted_makes_another(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    following = asyncio.ensure_future(tail(log, 0, 11))
    await all_of(log, *(on_task(f"t{i}") for i in range(10)))
    async with asyncio.timeout(20):
        while not (names := await consumers(private_nats)):
            await asyncio.sleep(0.01)
    await ask(private_nats.url, f"CONSUMER.DELETE.PLANS.{names[0]}")
    await eventually(lambda: log.new_consumers >= 1)
    await won(log, on_task("late"))
    assert [fact.sequence for fact in await following] == list(range(1, 12))


async def test_a_message_lost_on_the_way_is_noticed_and_read_again(
    log: JetStreamLog, wire: Wire
) -> None:
    count = 0

    def lossy(deliver: Deliver, message: Message) -> None:
        nonlocal count
        count += 1
        if count not in {7, 150}:
            deliver(*message)

    wire.consuming = lossy
    await all_of(log, *(on_task(f"t{i}") for i in range(100)))
    assert [fact.sequence for fact in await tail(log, 0, 100)] == list(range(1, 101))
    assert log.new_consumers >= 1


async def test_a_tail_that_is_read_slowly_loses_nothing(log: JetStreamLog) -> None:
    await all_of(log, *(on_task(f"t{i}", 0, *[STARTED] * 100) for i in range(120)))
    seen: list[int] = []
    async with aclosing(log.follow(0)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            seen += [fact.sequence for fact in batch]
            await log.state()  # long enough for everything outstanding to arrive
            if seen[-1] == 12_000:
                break
    assert seen == list(range(1, 12_001))
    assert log.new_consumers == 0


async def test_large_facts_pass_through_the_tail(log: JetStreamLog) -> None:
    large = Completed(owner="w", attempt=1, output=Raw(b'"' + b"x" * 1_500_000 + b'"'))
    for i in range(24):
        await won(log, on_task(f"t{i}", 0, large))
    assert len(await tail(log, 0, 24)) == 24
    assert log.new_consumers == 0
    assert len(await log.read("p")) == 24


async def test_closing_a_tail_leaves_no_consumer_behind(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    await won(log, on_plan("p"))
    await tail(log, 0, 1)
    async with asyncio.timeout(20):
        while await consumers(private_nats):
            await asyncio.sleep(0.01)


async def test_a_stream_that_is_gone_ends_the_tail(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    await won(log, on_plan("p"))
    async with aclosing(log.follow(0)) as batches:  # type: ignore[type-var]
        await anext(batches)
        coming = asyncio.ensure_future(anext(batches))
        await ask(private_nats.url, "STREAM.DELETE.PLANS")
        with pytest.raises(LogReset):
            await asyncio.wait_for(coming, 20)


async def test_the_tail_works_with_the_coming_form_of_reply_subjects(
    start_nats: Callable[..., PrivateServer], connect: Open, tmp_path: Path
) -> None:
    configuration = tmp_path / "flagged.conf"
    configuration.write_text(
        "host: 127.0.0.1\nfeature_flags { js_ack_fc_v2: true }\njetstream { sync_interval: 1s }\n"
    )
    log = await connect(start_nats(configuration))
    await all_of(log, *(on_task(f"t{i}") for i in range(50)))
    assert [fact.sequence for fact in await tail(log, 0, 50)] == list(range(1, 51))
    assert await log.read("p") == await tail(log, 0, 50)


def test_positions_are_found_in_every_form_of_reply_subject() -> None:
    for reply in (
        b"$JS.ACK.PLANS.tail-1.1.42.7.1700000000123456789.3",
        b"$JS.ACK._.hash.PLANS.tail-1.1.42.7.1700000000123456789.3",
        b"$JS.ACK.hub.hash.PLANS.tail-1.1.42.7.1700000000123456789.3.random",
    ):
        assert parse_reply(reply) == (42, 7, 1700000000123456789, b"3")


# How facts are stored.


async def test_only_chatter_carries_a_time_to_live(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    beat = Heartbeat(owner="w1", attempt=1, lease_s=15)
    await won(log, on_task("t", 0, STARTED, beat, Progress(owner="w1", attempt=1)))
    replies = await stored(private_nats, "plans.p.t")
    limited = [b"Nats-TTL: 86400s" in reply.headers for reply in replies]
    assert limited == [False, True, True]


async def test_a_heartbeat_that_expired_shows_as_a_lower_sequence(
    connect: Open, private_nats: PrivateServer
) -> None:
    log = await connect(private_nats, limits=AppenderLimits(chatter_ttl_s=1))
    first = await won(log, on_task("t"))
    beat = await won(log, on_task("t", first, Heartbeat(owner="w1", attempt=1, lease_s=15)))
    async with asyncio.timeout(20):
        while len(await log.read("p", "t")) == 2:
            await asyncio.sleep(0.05)
    assert await log.append(on_task("t", beat, STARTED)) == Conflict(first)
    after = await won(log, on_task("t", first, STARTED))
    assert [fact.sequence for fact in await tail(log, 0, after)] == [first, after]


async def test_no_append_asks_for_the_last_message_id(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    await all_of(log, *(on_task(f"t{i}") for i in range(50)))
    replies = await stored(private_nats, "plans.>")
    assert len(replies) == 50
    assert all(b"Last-Msg-Id" not in reply.headers for reply in replies)
    expected = b"Nats-Expected-Last-Subject-Sequence: 0\r\n"
    assert all(expected in reply.headers for reply in replies)


async def test_the_audit_trail_takes_what_happened_around_the_log(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    client = await nats.connect(private_nats.url)
    heard = await client.subscribe("audit.claimed_update_guard_reject.>")
    # nats-py lets a PING overtake a SUB, so flush() proves nothing; a request keeps the order.
    await client.request("$JS.API.INFO", b"")
    assert await log.trail.write([trail_entry("1", "claimed_update_guard_reject")]) == [1]
    assert (await heard.next_msg(5)).subject == "audit.claimed_update_guard_reject.p.~"
    await client.close()
    with pytest.raises(ValueError, match="no audit entry"):
        trail_entry("2", "no.such")


def trail_entry(id: str, event: str = "execution_failed", payload: bytes = b"{}") -> TrailEntry:
    return TrailEntry(id=id, event=event, subject=audit_subject(event, "p", None), payload=payload)


async def audit_messages(server: PrivateServer) -> int:
    info = msgspec.json.decode(await ask(server.url, "STREAM.INFO.AUDIT"))
    return int(info["state"]["messages"])


@pytest.mark.parametrize("count", [3, 200])
async def test_an_audit_entry_that_is_written_again_is_stored_once(
    log: JetStreamLog, private_nats: PrivateServer, count: int
) -> None:
    entries = [trail_entry(f"e{n}") for n in range(count)]
    assert await log.trail.write(entries) == list(range(1, count + 1))
    assert await log.trail.write(entries) == list(range(1, count + 1))
    assert await audit_messages(private_nats) == count
    more = [trail_entry(f"e{n}") for n in range(count - 1, 2 * count)]
    assert await log.trail.write(more) == list(range(count, 2 * count + 1))
    assert await audit_messages(private_nats) == 2 * count
    kept = await log.trail.read(0, 3 * count)
    assert [(message.sequence, message.id) for message in kept] == [
        (n + 1, f"e{n}") for n in range(2 * count)
    ]
    assert await log.trail.read(1, 2) == kept[1:3]
    assert await log.trail.read(2 * count, 1) == []


async def test_an_audit_entry_that_is_too_large_takes_no_other_with_it(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    entries = [trail_entry(f"e{n}") for n in range(20)]
    too_large = trail_entry("large", payload=b"x" * (MAX_PAYLOAD + 1))
    places = await log.trail.write([too_large, *entries])
    assert places == [None, *range(1, 21)]
    assert await audit_messages(private_nats) == 20


@pytest.mark.usefixtures("log")
async def test_an_audit_trail_of_an_older_holdfast_learns_to_take_batches(
    connect: Open, private_nats: PrivateServer
) -> None:
    found = msgspec.json.decode(await ask(private_nats.url, "STREAM.INFO.AUDIT"))["config"]
    await ask(private_nats.url, "STREAM.DELETE.AUDIT")
    older = {**found, "allow_atomic": False}
    assert b'"error"' not in await ask(
        private_nats.url, "STREAM.CREATE.AUDIT", msgspec.json.encode(older)
    )
    assert (await connect(private_nats)).connected
    now = msgspec.json.decode(await ask(private_nats.url, "STREAM.INFO.AUDIT"))["config"]
    assert now["allow_atomic"] is True


# The streams.


async def test_a_second_instance_finds_the_same_streams(
    connect: Open, private_nats: PrivateServer
) -> None:
    first = await connect(private_nats)
    second = await connect(private_nats)
    await won(first, on_plan("p"))
    mine, theirs = await first.state(), await second.state()
    assert (mine.epoch, mine.head) == (theirs.epoch, theirs.head)
    assert await second.append(on_plan("p")) == Conflict(1)


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("deny_delete", False, "deny_delete is false, wanted true"),
        ("allow_atomic", False, "allow_atomic is unset"),
        ("allow_direct", False, "allow_direct is false"),
        ("discard", "old", 'discard is "old", wanted "new"'),
        ("storage", "memory", 'storage is "memory", wanted "file"'),
        ("max_age", 3_600_000_000_000, "max_age is 3600000000000, wanted 0"),
        ("max_msgs_per_subject", 5, "max_msgs_per_subject is 5"),
        ("duplicate_window", 1_000_000_000, "duplicate_window is 1000000000"),
        ("subjects", ["plans.*"], 'subjects is ["plans.*"], wanted ["plans.>"]'),
    ],
)
async def test_a_stream_that_cannot_be_relied_on_is_refused(
    private_nats: PrivateServer, field: str, value: object, shown: str
) -> None:
    found = msgspec.json.decode(await ask(private_nats.url, "STREAM.INFO.PLANS"))["config"]
    await ask(private_nats.url, "STREAM.DELETE.PLANS")
    made = await ask(
        private_nats.url, "STREAM.CREATE.PLANS", msgspec.json.encode({**found, field: value})
    )
    assert b'"error"' not in made
    with pytest.raises(TopologyMismatch, match="stream PLANS") as refused:
        await JetStreamLog.connect(private_nats.url)
    assert shown in str(refused.value)
    assert "nats stream edit PLANS" in str(refused.value)


@pytest.mark.usefixtures("log")
async def test_a_stream_with_more_than_is_needed_is_accepted(
    connect: Open, private_nats: PrivateServer
) -> None:
    found = msgspec.json.decode(await ask(private_nats.url, "STREAM.INFO.PLANS"))["config"]
    more = {**found, "duplicate_window": 600_000_000_000, "description": "ours"}
    assert b'"error"' not in await ask(
        private_nats.url, "STREAM.UPDATE.PLANS", msgspec.json.encode(more)
    )
    assert (await connect(private_nats)).connected
