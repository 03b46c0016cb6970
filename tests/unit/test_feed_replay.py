"""Clients that are far behind: what bounds them, and what the log may do meanwhile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw

from projections.feed.entry import Interest
from projections.feed.limits import LIMITS, FeedLimits
from projections.feed.pace import STEPS, Pace
from projections.feed.replay import Pages
from streams.log import LogReset
from streams.plan.events import Paused, Progress
from tests.unit.feed_world import CLAIMED, HEARTBEAT, SUBMITTED, Watcher, World, running, until

PAUSED = Paused()


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Scans:
    """Watches the reads of a world's log, and holds them while told to."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.under_way = self.most_at_once = 0
        self.go = asyncio.Event()
        self.go.set()
        self._scan = world.log.scan
        monkeypatch.setattr(world.log, "scan", self)

    async def __call__(self, *asked: Any) -> Any:
        self.asked.append(asked)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await turns(10)  # a server takes its time
            await self.go.wait()
            return await self._scan(*asked)
        finally:
            self.under_way -= 1


def purge(world: World, up_to: int) -> None:
    """As an administrator: everything up to a sequence is gone."""
    world.log.purge(lambda sequence: sequence <= up_to)


# -- what the log does meanwhile ----------------------------------------------------------------


async def test_events_that_leave_the_log_before_they_are_read_are_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(buffer_events=1, replay_batch_size=10)
    world.claims(60)
    scans = Scans(world, monkeypatch)
    scans.go.clear()
    _, watcher = await world.connect(cursor=5)
    await until(lambda: scans.under_way, "the first read")
    purge(world, 40)
    scans.go.set()
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    assert watcher.signals == ["hello", "gap", "caught_up"]
    gap = watcher.blocks[1]
    assert gap.data == {"requested": 5, "first": 41, "head": 60, "reason": "expired"}
    assert gap.id == 40
    assert watcher.sequences == list(range(41, 61))


async def test_events_that_were_read_before_they_left_the_log_are_sent_before_the_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(buffer_events=1, replay_batch_size=100)
    world.claims(60)
    scan = world.log.scan

    async def torn(*asked: Any) -> Any:
        """The server loads message by message: the purge comes between the 20th and the 21st."""
        purge(world, 40)
        kept = await scan(*asked)
        return [*before, *kept] if asked[0] < 20 else kept

    before = await scan(0, 20)
    monkeypatch.setattr(world.log, "scan", torn)
    _, watcher = await world.connect(cursor=0)
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    assert watcher.sequences == [*range(1, 21), *range(41, 61)]
    names = [block.name for block in watcher.blocks]
    assert names.count("gap") == 1
    assert names.index("gap") == 21
    assert watcher.blocks[21].data["requested"] == 20


async def test_a_purged_log_leaves_a_gap_and_catches_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(buffer_events=1)
    world.claims(60)
    scans = Scans(world, monkeypatch)
    scans.go.clear()
    _, watcher = await world.connect(cursor=5)
    await until(lambda: scans.under_way, "the first read")
    purge(world, 60)
    scans.go.set()
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    assert watcher.signals == ["hello", "gap", "caught_up"]
    assert watcher.blocks[1].data["first"] == 61
    assert world.meter["agent.sse.replay.empty.total"] == 1
    assert world.meter["agent.sse.replay.hit.total"] == 0
    assert watcher.last_id == 60


async def test_expired_heartbeats_are_no_gap_wherever_they_stood() -> None:
    world = World(buffer_events=1, replay_batch_size=4)
    for number in range(40):
        world.write(HEARTBEAT if number % 3 else CLAIMED, "p", "a")
    await world.publish()
    world.log.purge(lambda sequence: sequence % 3 != 1)
    _, everything = await world.connect(cursor=1)
    _, of_plan = await world.connect(cursor=2, plan_id="p")
    for watcher in (everything, of_plan):
        await until(lambda: "caught_up" in watcher.signals, "caught up")  # noqa: B023
        assert watcher.signals == ["hello", "caught_up"]
        assert watcher.sequences == list(range(4, 41, 3))


async def test_a_plan_whose_beginning_has_left_the_log_is_sent_from_its_first_event_left() -> None:
    world = World(buffer_events=1)
    world.write(SUBMITTED)
    world.claims(3)  # 2, 3, 4
    world.write(PAUSED)  # 5: now the first fact of the plan's own
    world.claims(1)
    purge(world, 2)
    for interest in ({"cursor": 0, "plan_id": "p"}, {"plan_id": "p", "ends": True}):
        client, watcher = await world.connect(**interest)
        await until(lambda: client.caught_up, "caught up")  # noqa: B023
        assert watcher.sequences == [3, 4, 5, 6]


async def test_a_log_made_anew_is_never_mixed_with_the_one_that_was_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The instance ends soon; until then no client is caught up, and none is admitted."""
    world = World(FeedLimits(log_retry_s=0), buffer_events=1)
    world.claims(60)
    await world.publish()
    scans = Scans(world, monkeypatch)
    scans.go.clear()
    client, watcher = await world.connect(cursor=30)
    await until(lambda: scans.under_way, "the first read")
    world.log.reset()
    world.write(SUBMITTED)
    scans.go.set()
    await until(lambda: len(scans.asked) > 3, "it goes on asking")
    assert [block.name for block in watcher.blocks] == ["hello"]
    with pytest.raises(LogReset):
        await world.feed.prepare(Interest(), 0)
    world.feed.leave(client)


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
