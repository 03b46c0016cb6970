"""How a stream begins: with and without a cursor, and where the cursor cannot be honoured."""

import pytest

from tests.unit.feed.two_plans import names
from tests.unit.feed.world import (
    World,
    running,
    until,
)

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


@pytest.mark.parametrize(("forgotten", "reason"), [(2, "expired"), (3, "forgotten")])
async def test_a_beginning_that_was_forgotten_is_told_as_such_and_one_that_was_lost_is_not(
    world: World, forgotten: int, reason: str
) -> None:
    world.log.purge(lambda sequence: sequence <= 3)
    world.log.forgotten = forgotten
    _, watcher = await world.connect(cursor=1)
    assert await names(watcher, 4) == ["hello", "gap", "task.claimed", "caught_up"]
    gap = {"requested": 1, "first": 4, "head": 5, "reason": reason}
    assert watcher.blocks[1].data == gap
    assert world.meter["agent.sse.resume.total gap"] == (reason == "expired")


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
