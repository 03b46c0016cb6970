"""Replays are bounded: reads at once, bytes that are kept, and turns of the loop."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw

from projections.feed.limits import LIMITS, FeedLimits
from projections.feed.pace import STEPS, Pace
from projections.feed.replay import Pages
from streams.plan.events import Progress
from tests.unit.feed.scans import Scans, turns
from tests.unit.feed.world import SUBMITTED, Watcher, World, running, until

# -- bounds -------------------------------------------------------------------------------------


async def test_a_thousand_clients_with_a_thousand_filters_read_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(FeedLimits(kept_bytes=20_000), buffer_events=1, replay_batch_size=2)
    for number in range(1_000):
        world.write(SUBMITTED, f"p{number}")
    for number in range(0, 1_000, 200):
        world.claims(3, f"p{number}")
    await world.publish()
    scans = Scans(world, monkeypatch)
    pairs = [await world.connect(cursor=0, plan_id=f"p{number}") for number in range(1_000)]
    kept = 0
    while not all(client.caught_up for client, _ in pairs):
        kept = max(kept, world.feed.pages.kept_bytes)
        await asyncio.sleep(0)
    assert scans.most_at_once == LIMITS.reads
    assert 0 < kept <= 20_000
    assert [watcher.sequences[0] for _, watcher in pairs] == list(range(1, 1_001))
    assert len(pairs[0][1].sequences) == 4


async def test_pages_that_large_events_end_early_keep_no_client_from_going_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two clients push out each other's page, and stand where no page of round size reaches."""
    world = World(FeedLimits(kept_bytes=1), buffer_events=1, replay_batch_size=30)
    world.claims(60)
    await world.publish()
    scan, reads = world.log.scan, list[int]()

    async def few(after: int, limit: int, plan_id: str | None = None) -> Any:
        reads.append(after)
        return await scan(after, min(limit, 3), plan_id)

    monkeypatch.setattr(world.log, "scan", few)
    pairs = [await world.connect(cursor=cursor) for cursor in (20, 50)]
    await until(lambda: all(client.caught_up for client, _ in pairs), "all caught up")
    assert [watcher.sequences[0] for _, watcher in pairs] == [21, 51]
    assert len(reads) <= 2 * (60 - 20 + 60 - 50) // 3 + 2


async def test_clients_that_come_and_go_leave_no_reads_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(buffer_events=1, replay_batch_size=10)
    world.claims(1_000)
    await world.publish()
    scans = Scans(world, monkeypatch)
    scans.go.clear()
    for number in range(100):
        client, _ = await world.connect(cursor=number * 10)
        await turns(5)
        world.feed.leave(client)
    await until(lambda: not world.feed.pages.reads, "no read is left")
    assert len(scans.asked) <= 100
    await turns()
    assert scans.under_way == 0
    scans.go.set()
    client, watcher = await world.connect(cursor=0)
    await until(lambda: client.caught_up, "another client is served")
    assert len(watcher.sequences) == 1_000


async def test_a_client_that_shares_a_read_with_one_that_leaves_still_gets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(buffer_events=1, replay_batch_size=100)
    world.claims(50)
    scans = Scans(world, monkeypatch)
    scans.go.clear()
    (first, _), (second, watcher) = [await world.connect(cursor=0) for _ in range(2)]
    await until(lambda: scans.under_way, "the read")
    await turns()
    world.feed.leave(first)
    await turns()
    scans.go.set()
    await until(lambda: second.caught_up, "caught up")
    assert watcher.sequences == list(range(1, 51))
    assert len(scans.asked) == 1


async def test_many_that_wait_for_about_the_same_place_are_served_by_one_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plan's clients resume from anywhere; those that had to wait look again before they read."""
    world = World(buffer_events=1, replay_batch_size=1_000)
    world.claims(200)
    await world.publish()
    scans = Scans(world, monkeypatch)
    scans.go.clear()
    pairs = [await world.connect(cursor=number, plan_id="p") for number in range(100)]
    await until(lambda: world.feed.pages.reads == 100, "all wait")
    scans.go.set()
    await until(lambda: all(client.caught_up for client, _ in pairs), "all caught up")
    assert all(w.sequences == list(range(n + 1, 201)) for n, (_, w) in enumerate(pairs))
    assert len(scans.asked) == LIMITS.reads


@asynccontextmanager
async def counted_turns() -> AsyncIterator[list[int]]:
    """The number of the loop's turn, in a list of one."""
    turn = [0]

    async def tick() -> None:
        while True:
            turn[0] += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(tick())
    try:
        yield turn
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("buffer_events", [1, 1_000])
async def test_a_crowd_that_catches_up_leaves_the_loop_to_others(buffer_events: int) -> None:
    world = World(buffer_events=buffer_events, replay_batch_size=100)
    world.claims(500)
    await world.publish()
    events: Counter[int] = Counter()

    class Noting(Watcher):
        def write(self, data: bytes) -> bool:
            events[turn[0]] += data.count(b"event: task")
            return super().write(data)

    async with counted_turns() as turn:
        pairs = [await world.connect(Noting(), cursor=0) for _ in range(300)]
        await until(lambda: all(client.caught_up for client, _ in pairs), "all caught up")
    assert all(watcher.sequences == list(range(1, 501)) for _, watcher in pairs)
    # A piece is at most 64 kB, which is some 300 of these events.
    assert max(events.values()) <= STEPS * 500


async def test_the_pace_lets_a_few_go_in_each_turn_and_in_order() -> None:
    pace, went, done = Pace(), Counter[int](), list[int]()

    async def goes(number: int) -> None:
        await pace.step()
        went[turn[0]] += 1
        done.append(number)

    async with counted_turns() as turn:
        tasks = [asyncio.create_task(goes(number)) for number in range(40)]
        await turns(1)
        tasks[20].cancel()
        await asyncio.wait(tasks)
    assert max(went.values()) == STEPS
    assert done == [number for number in range(40) if number != 20]


async def test_a_filter_that_matches_nothing_moves_the_cursor_through_the_log() -> None:
    world = World(buffer_events=10, replay_batch_size=1_000)
    world.claims(20_000)
    await world.publish()
    _, watcher = await world.connect(cursor=0, types=frozenset({"task.failed"}))
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    assert watcher.sequences == []
    assert watcher.last_id == 20_000
    assert 19 <= world.meter["agent.sse.replay.batch.total"] <= 21


async def test_an_event_is_rendered_once_for_all_that_replay_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from projections.feed import entry  # noqa: PLC0415 - its function is replaced

    rendered: Counter[int] = Counter()
    render = entry.render

    def counting(fact: Any) -> bytes:
        rendered[fact.sequence] += 1
        return render(fact)

    monkeypatch.setattr(entry, "render", counting)
    world = World(buffer_events=50, replay_batch_size=100)
    world.claims(300)
    await world.publish()
    pairs = [await world.connect(cursor=number % 7) for number in range(50)]
    await until(lambda: all(client.caught_up for client, _ in pairs), "all caught up")
    # Once for the page that it stands in, and once for the ring.
    assert max(rendered.values()) <= 2
    assert sum(rendered.values()) <= 350


async def test_pages_are_kept_for_a_while_only() -> None:
    world = World(FeedLimits(kept_s=0.1), buffer_events=1, heartbeat_s=300)
    world.claims(60)
    await world.publish()
    client, _ = await world.connect(cursor=0)
    await until(lambda: client.caught_up, "caught up")
    assert world.feed.pages.kept_bytes
    async with running(world):
        await until(lambda: not world.feed.pages.kept_bytes, "they are forgotten")
    again, watcher = await world.connect(cursor=0)
    await until(lambda: again.caught_up, "caught up by a new read")
    assert watcher.sequences == list(range(1, 61))


async def test_a_large_event_is_the_same_bytes_for_all_that_replay_it() -> None:
    world = World(buffer_events=1)
    world.claims(2)
    large = Progress(owner="w", attempt=1, data=Raw(b'"' + b"x" * 100_000 + b'"'))
    world.write(large, "p", "a")
    world.claims(2)
    written: list[bytes] = []

    class Noting(Watcher):
        def write(self, data: bytes) -> bool:
            written.append(data)
            return super().write(data)

    pairs = [await world.connect(Noting(), cursor=cursor) for cursor in (0, 1)]
    await until(lambda: all(client.caught_up for client, _ in pairs), "all caught up")
    assert [watcher.sequences for _, watcher in pairs] == [[1, 2, 3, 4, 5], [2, 3, 4, 5]]
    first, second = [data for data in written if len(data) > 100_000]
    assert first is second


async def test_large_events_bound_what_is_kept() -> None:
    world = World(buffer_events=1)
    large = Progress(owner="w", attempt=1, data=Raw(b'"' + b"x" * 100_000 + b'"'))
    for _ in range(40):
        world.write(large, "p", "a")
    kept = Pages(world.log, 4, world.log.epoch, world.meter, FeedLimits(kept_bytes=1_000_000))
    cursor, most = 0, 0
    while cursor < 40:
        cursor = (await kept.after(cursor, None, 40)).last
        most = max(most, kept.kept_bytes)
    assert most <= 1_000_000
    await kept.close()
