"""How a stream ends: with its plan, and never before it."""

import pytest

from projections.feed import NoStream
from projections.feed.entry import Interest
from projections.feed.limits import FeedLimits
from tests.unit.feed.two_plans import two_plans
from tests.unit.feed.world import (
    FINISHED,
    RETRIED,
    SUBMITTED,
    Watcher,
    World,
    running,
    until,
)

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
