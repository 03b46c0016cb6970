"""What leaves the log while it is replayed is a gap, told once and truthfully."""

from typing import Any

import pytest

from projections.feed.entry import Interest
from projections.feed.limits import FeedLimits
from streams.log import LogReset
from streams.plan.events import Paused
from tests.unit.feed.scans import Scans
from tests.unit.feed.world import CLAIMED, HEARTBEAT, SUBMITTED, Watcher, World, until

PAUSED = Paused()


def purge(world: World, up_to: int) -> None:
    """As an administrator: everything up to a sequence is gone."""
    world.log.purge(lambda sequence: sequence <= up_to)


async def about_to_read(monkeypatch: pytest.MonkeyPatch) -> tuple[World, Scans, Watcher]:
    """Sixty facts, and a stream behind the fifth whose first read is held up."""
    world = World(buffer_events=1, replay_batch_size=10)
    world.claims(60)
    scans = Scans(world, monkeypatch)
    scans.go.clear()
    _, watcher = await world.connect(cursor=5)
    await until(lambda: scans.under_way, "the first read")
    return world, scans, watcher


# -- what the log does meanwhile ----------------------------------------------------------------


async def test_events_that_leave_the_log_before_they_are_read_are_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, scans, watcher = await about_to_read(monkeypatch)
    purge(world, 40)
    scans.go.set()
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    assert watcher.signals == ["hello", "gap", "caught_up"]
    gap = watcher.blocks[1]
    assert gap.data == {"requested": 5, "first": 41, "head": 60, "reason": "expired"}
    assert gap.id == 40
    assert watcher.sequences == list(range(41, 61))


@pytest.mark.parametrize(
    ("gone", "rest"),
    [(range(1, 41), range(41, 61)), (range(10, 41), [*range(6, 10), *range(41, 61)])],
)
async def test_events_that_are_forgotten_before_they_are_read_are_told_once(
    monkeypatch: pytest.MonkeyPatch, gone: range, rest: list[int]
) -> None:
    """The log's beginning was removed, or plans behind it; the note is raised before."""
    world, scans, watcher = await about_to_read(monkeypatch)
    world.log.forgotten = 45
    world.log.purge(gone.__contains__)
    scans.go.set()
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    assert watcher.signals == ["hello", "gap", "caught_up"]
    gap = next(block for block in watcher.blocks if block.name == "gap")
    assert (gap.data["requested"], gap.data["reason"]) == (5, "forgotten")
    assert watcher.sequences == list(rest)


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
