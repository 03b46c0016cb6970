"""One stream at a time: how it begins, what it carries, and how it ends."""

import asyncio
import random

import pytest
from msgspec import Raw

from projections.feed import NoStream
from projections.feed.entry import ALL_TYPES, PING, Interest, entry_of, render
from projections.feed.limits import LIMITS, FeedLimits
from streams.log import Fact, LogUnavailable
from streams.plan.events import Completed, Progress
from tests.unit.feed_world import (
    CLAIMED,
    FINISHED,
    HEARTBEAT,
    RETRIED,
    SUBMITTED,
    Watcher,
    World,
    blocks,
    running,
    until,
)


@pytest.fixture
async def world() -> World:
    return await two_plans()


async def two_plans(limits: FeedLimits = LIMITS) -> World:
    """A log with two plans: p (1, 3, 4 heartbeat, 5) and q (2)."""
    world = World(limits)
    world.write(SUBMITTED)
    world.write(SUBMITTED, "q")
    world.write(CLAIMED, "p", "a")
    world.write(HEARTBEAT, "p", "a")
    world.write(CLAIMED, "p", "b")
    await world.publish()
    return world


async def names(watcher: Watcher, count: int) -> list[str]:
    await until(lambda: len(watcher.blocks) >= count, f"{count} blocks")
    return [block.name for block in watcher.blocks]


# -- beginning --------------------------------------------------------------------------------


async def test_hello_tells_the_log_and_the_ping_period(world: World) -> None:
    _, watcher = await world.connect()
    assert watcher.text.startswith(b"retry: ")
    epoch = (await world.log.state()).epoch
    assert watcher.blocks[0].data == {"epoch": epoch, "head": 5, "first": 1, "heartbeat_s": 300}


async def test_retry_has_jitter(world: World) -> None:
    retries = {(await world.connect())[1].text.partition(b"\n")[0] for _ in range(20)}
    assert len(retries) > 10


async def test_without_a_cursor_a_stream_starts_at_the_head(world: World) -> None:
    _, watcher = await world.connect()
    assert await names(watcher, 2) == ["hello", "caught_up"]
    assert watcher.blocks[1].data == {"sequence": 5}


async def test_without_a_cursor_the_hello_gives_one_so_that_a_cut_loses_nothing(
    world: World,
) -> None:
    _, watcher = await world.connect()
    assert watcher.last_id == 5


async def test_without_a_cursor_a_plans_own_stream_starts_at_its_beginning(world: World) -> None:
    _, watcher = await world.connect(plan_id="p", ends=True)
    await names(watcher, 5)
    assert watcher.sequences == [1, 3, 5]


async def test_the_beginning_of_the_log_is_cursor_0_and_no_gap(world: World) -> None:
    _, watcher = await world.connect(cursor=0)
    assert await names(watcher, 6) == [
        "hello", "plan.submitted", "plan.submitted", "task.claimed", "task.claimed", "caught_up",
    ]  # fmt: skip


async def test_a_cursor_older_than_the_ring_is_replayed_from_the_log() -> None:
    world = World(buffer_events=2, replay_batch_size=3)
    world.claims(10)
    await world.publish()
    _, watcher = await world.connect(cursor=1)
    await names(watcher, 11)
    assert watcher.sequences == [2, 3, 4, 5, 6, 7, 8, 9, 10]


async def test_a_cursor_whose_followers_have_left_the_log_gets_a_gap(
    world: World,
) -> None:
    world.log.purge(lambda sequence: sequence <= 3)
    _, watcher = await world.connect(cursor=1)
    assert await names(watcher, 4) == ["hello", "gap", "task.claimed", "caught_up"]
    gap = {"requested": 1, "first": 4, "head": 5, "reason": "expired"}
    assert watcher.blocks[1].data == gap
    assert world.meter["agent.sse.resume.total gap"] == 1


@pytest.mark.parametrize(("cursor", "gaps"), [(0, 0), (1, 1), (2, 1), (3, 0)])
async def test_a_cursor_before_forgotten_facts_is_told_once_and_gets_all_that_is_there(
    world: World, cursor: int, gaps: int
) -> None:
    world.log.forgotten = 3
    _, watcher = await world.connect(cursor=cursor)
    rest = [each for each in (1, 2, 3, 5) if each > cursor]
    found = await names(watcher, 2 + gaps + len(rest))
    assert found.count("gap") == gaps
    assert found[-1] == "caught_up"
    if gaps:
        gap = {"requested": cursor, "first": 1, "head": 5, "reason": "forgotten"}
        assert watcher.blocks[1].data == gap
    assert [block.id for block in watcher.blocks if block.name.startswith(("plan", "task"))] == rest


async def test_a_cursor_just_before_the_first_message_is_no_gap(world: World) -> None:
    world.log.purge(lambda sequence: sequence <= 3)
    _, watcher = await world.connect(cursor=3)
    assert await names(watcher, 3) == ["hello", "task.claimed", "caught_up"]


async def test_a_cursor_ahead_of_the_log_belongs_to_another_one(world: World) -> None:
    _, watcher = await world.connect(cursor=900)
    await names(watcher, 7)
    gap = {"requested": 900, "first": 1, "head": 5, "reason": "ahead_of_log"}
    assert watcher.blocks[1].data == gap
    assert watcher.sequences == [1, 2, 3, 5]


async def test_a_feed_that_lags_behind_the_log_still_tells_the_truth(world: World) -> None:
    world.claims(5)  # 6..10, which the feed has not heard of
    _, watcher = await world.connect(cursor=4)
    await names(watcher, 8)
    assert watcher.sequences == [5, 6, 7, 8, 9, 10]
    assert watcher.blocks[-1].data == {"sequence": 10}
    await world.publish()
    world.claims(1)
    async with running(world):
        await world.publish()
        await until(lambda: len(watcher.events) == 7, "the next event")
    assert watcher.sequences == [5, 6, 7, 8, 9, 10, 11]


# -- what is carried --------------------------------------------------------------------------


async def test_an_event_looks_as_the_contract_says(world: World) -> None:
    _, watcher = await world.connect(cursor=2)
    await names(watcher, 3)
    event = watcher.events[0]
    at = event.data.pop("at")
    assert at.endswith("Z")
    assert "T" in at
    assert event.id == 3
    assert event.data == {
        "sequence": 3,
        "plan_id": "p",
        "task_id": "a",
        "type": "task.claimed",
        "trace_id": None,  # what was written by hand has none
        "data": {
            "owner": "w",
            "attempt": 1,
            "lease_s": 15.0,
            "lane": "ready",
            "previous_owner": None,
            "silent": False,
            "started": False,
            "timeout_s": None,
        },
    }


@pytest.mark.parametrize("raw", [b'{"a":\n1}', b'{"a":\r1}', b'[\r\n\r\n"x"]'])
def test_json_with_line_breaks_stays_one_line(raw: bytes) -> None:
    event = Completed(owner="w", attempt=1, output=Raw(raw))
    text = render(Fact(1, 0.0, "p", "a", event))
    assert text.count(b"\n") == 4
    assert b"\r" not in text
    assert blocks(text)[0].data["data"]["output"] in ({"a": 1}, ["x"])


def test_an_event_is_rendered_once() -> None:
    entry = entry_of(Fact(1, 0.0, "p", "a", Progress(owner="w", attempt=1, data=Raw(b"1"))))
    assert entry.text() is entry.text()
    assert entry.fact is None


async def test_heartbeats_come_only_when_asked_for(world: World) -> None:
    _, without = await world.connect(cursor=0)
    _, asked = await world.connect(cursor=0, types=frozenset({"task.heartbeat"}))
    _, everything = await world.connect(cursor=0, types=frozenset(ALL_TYPES))
    for watcher in (without, asked, everything):
        await until(lambda: "caught_up" in watcher.signals, "caught up")  # noqa: B023
    assert without.sequences == [1, 2, 3, 5]
    assert asked.sequences == [4]
    assert everything.sequences == [1, 2, 3, 4, 5]


async def test_what_a_filter_left_out_still_moves_the_cursor(world: World) -> None:
    _, watcher = await world.connect(cursor=0, types=frozenset({"task.failed"}))
    assert await names(watcher, 2) == ["hello", "caught_up"]
    assert watcher.last_id == 5


async def test_clients_of_one_plan_get_the_same_bytes_in_one_write_each(world: World) -> None:
    pairs = [await world.connect(plan_id="p") for _ in range(5)]
    others = [await world.connect(plan_id="q") for _ in range(5)]
    await until(lambda: all("caught_up" in w.signals for _, w in pairs + others), "all are live")
    writes = [watcher.writes for _, watcher in others]
    world.claims(3)
    await world.publish()
    async with running(world):
        await until(lambda: all(len(w.events) == 3 for _, w in pairs), "delivery")
    assert [watcher.writes for _, watcher in others] == writes
    assert len({watcher.text.partition(b"caught_up")[2] for _, watcher in pairs}) == 1
    assert world.meter["agent.sse.push.attempt.total"] == 15


def pings(watcher: Watcher) -> int:
    return watcher.text.count(PING)


async def test_each_client_is_pinged_once_in_a_period() -> None:
    world = World(heartbeat_s=0.05)
    pairs = [await world.connect() for _ in range(60)]
    async with running(world):
        await until(lambda: all(pings(watcher) > 2 for _, watcher in pairs), "pings")
    assert max(pings(watcher) for _, watcher in pairs) <= 4


# -- ending -----------------------------------------------------------------------------------


async def test_a_plans_own_stream_ends_after_finished(world: World) -> None:
    _, late = await world.connect(cursor=4, plan_id="p", ends=True)
    _, other = await world.connect(plan_id="p")
    await until(lambda: "caught_up" in late.signals, "caught up")
    world.write(FINISHED)
    async with running(world):
        await world.publish()
        await until(lambda: late.ended, "the end")
    assert [block.name for block in late.blocks][-2:] == ["plan.finished", "closed"]
    assert late.blocks[-1].data == {"reason": "plan_finished"}
    assert not other.ended


async def test_a_finished_plan_is_sent_to_its_end_and_then_no_more() -> None:
    world = await two_plans(FeedLimits(run_bytes=1))  # event by event
    world.write(FINISHED)
    _, watcher = await world.connect(plan_id="p", ends=True)  # the feed has not heard of it yet
    await until(lambda: watcher.ended, "the end")
    assert watcher.sequences == [1, 3, 5, 6]
    assert [block.name for block in watcher.blocks][-2:] == ["caught_up", "closed"]
    _, resumed = await world.connect(cursor=2, plan_id="p", ends=True)
    await until(lambda: resumed.ended, "the end again")
    assert resumed.sequences == [3, 5, 6]
    interest = Interest(plan_id="p", ends=True)
    assert await world.feed.prepare(interest, watcher.last_id) is NoStream.OVER


async def test_a_filter_without_finished_still_comes_to_an_end(world: World) -> None:
    types = frozenset({"task.claimed"})
    _, watcher = await world.connect(plan_id="p", ends=True, types=types)
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    world.write(FINISHED)
    async with running(world):
        await world.publish()
        await until(lambda: watcher.ended, "the end")
    assert watcher.sequences == [3, 5]


async def test_a_retried_plan_goes_on(world: World) -> None:
    world.write(FINISHED)
    world.write(RETRIED)
    await world.publish()
    _, watcher = await world.connect(cursor=6, plan_id="p", ends=True)
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    assert watcher.sequences == [7]
    assert not watcher.ended


@pytest.mark.parametrize("finishes_again", [False, True])
async def test_a_plan_retried_while_finished_is_being_written_goes_on(
    *, finishes_again: bool
) -> None:
    world = await two_plans(FeedLimits(fan_out_slice=1))
    pairs = [await world.connect(plan_id="p", ends=True) for _ in range(3)]
    await until(lambda: all("caught_up" in w.signals for _, w in pairs), "all are live")
    world.write(FINISHED)
    await world.publish()
    async with running(world):
        await until(lambda: len(pairs[0][1].events) == 4, "the first has it")
        assert len(pairs[2][1].events) == 3, "the last has not"
        world.write(RETRIED)
        if finishes_again:
            world.write(FINISHED)
        await world.publish()
        due = 6 if finishes_again else 5
        await until(lambda: all(len(w.events) == due for _, w in pairs), "all have everything")
        await until(lambda: pairs[2][1].ended is finishes_again, "and end only then")
    assert all(watcher.ended is finishes_again for _, watcher in pairs)


async def slow_from(world: World, event: int) -> Watcher:
    """A live client of p's own stream that lags once, after the write with its nth event."""
    watcher = Watcher(lambda: 3 if len(watcher.events) == event else 0)
    await world.connect(watcher, plan_id="p", ends=True)
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    return watcher


async def test_a_client_that_falls_behind_with_finished_comes_to_the_end(
    world: World,
) -> None:
    slow = await slow_from(world, 4)
    world.write(FINISHED)
    async with running(world):
        await world.publish()
        await until(lambda: slow.ended, "the end")
    assert [block.name for block in slow.blocks][-2:] == ["plan.finished", "closed"]


async def test_a_client_that_falls_behind_with_finished_is_not_ended_if_the_plan_goes_on(
    world: World,
) -> None:
    slow = await slow_from(world, 4)
    async with running(world):
        world.write(FINISHED)
        world.write(RETRIED)
        await world.publish(6)  # the write that lags ends with finished
        await until(lambda: slow.sequences[-1:] == [6], "it has that")
        await world.publish()
        await until(lambda: slow.sequences[-1:] == [7], "and what follows")
        world.claims(1)
        await world.publish()
        await until(lambda: slow.sequences[-1:] == [8], "and what follows that")
    assert not slow.ended


async def test_an_unknown_plan_has_no_stream_but_may_be_waited_for(world: World) -> None:
    assert await world.feed.prepare(Interest(plan_id="x", ends=True), None) is NoStream.UNKNOWN_PLAN
    _, watcher = await world.connect(plan_id="x")
    world.write(SUBMITTED, "x")
    async with running(world):
        await world.publish()
        await until(lambda: watcher.events, "its first event")


async def test_only_so_many_streams_are_admitted() -> None:
    world = World(max_connections=2)
    assert [world.feed.admit() for _ in range(3)] == [None, None, NoStream.TOO_MANY]
    world.feed.discharge()
    assert world.feed.admit() is None


async def test_closing_ends_every_stream_with_closed(world: World) -> None:
    _, live = await world.connect()
    _, behind = await world.connect(cursor=0)
    world.feed.close()
    for watcher in (live, behind):
        assert watcher.ended
        assert watcher.blocks[-1].data == {"reason": "shutting_down"}
    assert world.feed.admit() is NoStream.SHUTTING_DOWN


# -- trouble ----------------------------------------------------------------------------------


async def test_a_client_that_takes_no_bytes_is_ended_and_the_others_are_not() -> None:
    world = await two_plans(FeedLimits(slow_s=0.02))
    _, frozen = await world.connect()
    _, healthy = await world.connect()
    both = (frozen, healthy)
    await until(lambda: all("caught_up" in watcher.signals for watcher in both), "both are live")
    frozen.frozen = True
    async with running(world):
        world.claims(10)
        await world.publish()
        await until(lambda: frozen.ended, "the end of the frozen one")
        writes = frozen.writes
        world.claims(10)
        await world.publish()
        await until(lambda: len(healthy.events) == 20, "delivery")
    assert frozen.writes == writes
    assert frozen.blocks[-1].data == {"reason": "slow_consumer"}
    assert world.meter["agent.sse.push.fail.total slow_consumer"] == 1


async def test_a_slow_client_comes_back_without_loss(world: World) -> None:
    luck, last = random.Random(1), 0
    _, slow = await world.connect(Watcher(lambda: luck.choice((0, 3, 20))))
    async with running(world):
        for _ in range(50):
            last = world.claims(4)
            await world.publish()
            await asyncio.sleep(0)
        await until(lambda: slow.sequences[-1:] == [last], "the last event")
    assert slow.sequences == list(range(6, last + 1))


@pytest.mark.parametrize("limits", [FeedLimits(pending_events=3), FeedLimits(pending_bytes=2_000)])
async def test_clients_fetch_themselves_what_is_too_much_for_their_channel(
    limits: FeedLimits,
) -> None:
    world = await two_plans(limits)
    _, watcher = await world.connect()
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    last = world.claims(30)
    await world.publish()  # and no loop fans out
    await until(lambda: watcher.sequences[-1:] == [last], "the last event")
    assert watcher.sequences == list(range(6, last + 1))


async def test_a_client_that_has_gone_is_noticed_at_the_next_write(world: World) -> None:
    client, watcher = await world.connect()
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    watcher.gone = True
    async with running(world):
        world.claims(1)
        await world.publish()
        await until(lambda: not client.open, "the end")
    assert world.meter["agent.sse.push.fail.total disconnected"] == 1
    world.feed.leave(client)
    assert world.meter["agent.sse.connections.current"] == 0


async def test_a_log_that_does_not_answer_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(FeedLimits(log_retry_s=0), buffer_events=1)
    world.claims(10)
    await world.publish()
    answers = iter([LogUnavailable("no"), LogUnavailable("no")])
    scan = world.log.scan

    async def fails_twice(*asked: object) -> object:
        for error in answers:
            raise error
        return await scan(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(world.log, "scan", fails_twice)
    _, watcher = await world.connect(cursor=0)
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    assert watcher.sequences == list(range(1, 11))


async def test_a_read_that_began_before_a_client_came_does_not_take_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(buffer_events=1, replay_batch_size=100)
    world.claims(3)
    held, scan = asyncio.Event(), world.log.scan

    async def slow(*asked: object) -> object:
        facts = await scan(*asked)  # type: ignore[arg-type]
        await held.wait()
        return facts

    monkeypatch.setattr(world.log, "scan", slow)
    _, early = await world.connect(cursor=0)
    for _ in range(10):
        await asyncio.sleep(0)
    world.claims(2)
    _, late = await world.connect(cursor=4)
    for _ in range(10):
        await asyncio.sleep(0)
    held.set()
    await until(lambda: "caught_up" in late.signals, "caught up")
    assert late.sequences == [5]
    assert early.sequences[:3] == [1, 2, 3]


async def test_many_that_resume_together_share_the_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(buffer_events=10, replay_batch_size=50)
    world.claims(500)
    await world.publish()
    reads: list[object] = []
    scan = world.log.scan

    async def counted(*asked: object) -> object:
        reads.append(asked)
        return await scan(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(world.log, "scan", counted)
    pairs = [await world.connect(cursor=number % 10) for number in range(100)]
    await until(lambda: all(client.caught_up for client, _ in pairs), "all caught up")
    assert all(w.sequences == list(range(1 + n % 10, 501)) for n, (_, w) in enumerate(pairs))
    assert len(reads) <= 20
    # What is measured are the reads, however many share one.
    metered = ["batch.total", "hit.total", "duration observations"]
    assert {world.meter[f"agent.sse.replay.{each}"] for each in metered} == {len(reads)}
    assert 490 <= world.meter["agent.sse.replay.events.total"] <= len(reads) * 50
    assert world.meter["agent.sse.push.attempt.total"] == sum(len(w.events) for _, w in pairs)
