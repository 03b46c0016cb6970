"""Every client sees exactly the filtered log after its first cursor, whatever happens to it."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from projections.feed import NoStream
from projections.feed.entry import ALL_TYPES, UNASKED_TYPES, Interest
from projections.feed.limits import FeedLimits
from streams.plan.events import Event
from tests.unit.feed.world import (
    CLAIMED,
    FINISHED,
    HEARTBEAT,
    RETRIED,
    SUBMITTED,
    Watcher,
    World,
    dice,
    running,
    until,
    wanted,
)

PLANS = ("p", "q", "r")
TASKS = ("a", "b")
SOME_TYPES = frozenset({"plan.submitted", "task.claimed", "task.failed"})
WRITES = 300
CLIENTS = 16
SEEDS = 25


async def write_at_random(world: World, luck: random.Random) -> None:
    for plan_id in PLANS:
        world.write(SUBMITTED, plan_id)
    while len(world.written) < WRITES:
        for _ in range(luck.choice((1, 1, 2, 5, 40))):
            event: Event = luck.choice((CLAIMED, CLAIMED, HEARTBEAT, FINISHED, RETRIED))
            about_plan = event in (FINISHED, RETRIED)
            world.write(event, luck.choice(PLANS), None if about_plan else luck.choice(TASKS))
        if luck.random() < 0.1:
            world.log.publish("plans.p", b"no fact at all")
        for _ in range(luck.choice((1, 1, 3, 10, 60))):
            await asyncio.sleep(0)
    for plan_id in PLANS:
        world.write(FINISHED, plan_id)
    world.write(CLAIMED, "s", "a")


async def publish_at_random(world: World, luck: random.Random) -> None:
    """The projector: late, and in batches of any size."""
    async for batch in world.log.follow(0):
        start = 0
        while start < len(batch):
            part = batch[start : start + luck.choice((1, 3, 20, 200))]
            world.feed.publish(part, part[-1].sequence)
            start += len(part)
            for _ in range(luck.choice((0, 0, 1, 10))):
                await asyncio.sleep(0)


def random_interest(luck: random.Random) -> Interest:
    plan_id = luck.choice((None, *PLANS[:2]))
    return Interest(
        plan_id=plan_id,
        task_id=luck.choice((None, None, None, *TASKS)),
        types=luck.choice((UNASKED_TYPES, UNASKED_TYPES, frozenset(ALL_TYPES), SOME_TYPES)),
        ends=plan_id is not None and luck.random() < 0.5,
    )


async def follow_with_breaks(
    world: World, luck: random.Random, done: asyncio.Event, slow: Sequence[int]
) -> tuple[Interest, int, list[int]]:
    """One client that is cut off at random and comes back; interest, first cursor, what it saw."""
    interest = random_interest(luck)
    for _ in range(luck.randrange(60)):
        await asyncio.sleep(0)
    first = cursor = luck.randrange((await world.log.state()).head + 1)
    seen: list[int] = []
    while True:
        last_round = done.is_set()
        opening = await world.feed.prepare(interest, cursor)
        if opening is NoStream.OVER:
            if last_round:
                return interest, first, seen
            await asyncio.sleep(0)
            continue
        assert not isinstance(opening, NoStream)
        watcher = Watcher(lambda: luck.choice(slow))
        client = world.feed.attach(opening, watcher)
        turns = luck.randrange(1, 400)
        while not watcher.ended and (last_round or turns > 0):
            # In the end every plan has ended, and with it every stream of its own.
            if last_round and not interest.ends and client.cursor >= world.written[-1][0]:
                break
            turns -= 1
            await asyncio.sleep(0)
        world.feed.leave(client)
        seen += watcher.sequences
        cursor = watcher.last_id if watcher.last_id is not None else cursor
        assert "gap" not in watcher.signals
        assert not watcher.ended or "caught_up" in watcher.signals
        assert_caught_up_is_true(world, watcher, interest, opening.head, opening.cursor)
        if last_round and (not watcher.ended or not interest.ends):
            return interest, first, seen


def assert_caught_up_is_true(
    world: World, watcher: Watcher, interest: Interest, head: int, start: int
) -> None:
    names = [block.name for block in watcher.blocks]
    if "caught_up" not in names:
        return
    assert names.count("caught_up") == 1
    place = names.index("caught_up")
    before = [b.data["sequence"] for b in watcher.blocks[:place] if "." in b.name]
    due = [sequence for sequence in wanted(world.written, interest, start) if sequence <= head]
    assert before[: len(due)] == due
    assert watcher.blocks[place].data["sequence"] >= head


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_each_client_sees_exactly_the_filtered_log(seed: int) -> None:
    luck = dice(seed)
    # Small steps, so that everything that may happen between two of them does.
    limits = FeedLimits(
        fan_out_slice=luck.choice((1, 3)),
        run_bytes=luck.choice((1, 2000, 60_000)),
        scanned_events=luck.choice((1, 7, 1000)),
    )
    slow = luck.choice(((0,), (0, 0, 0, 0, 1, 5, 30)))
    world = World(
        limits,
        buffer_events=luck.choice((1, 5, 30, 1000)),
        replay_batch_size=luck.choice((1, 4, 50, 1000)),
    )
    async with running(world):
        projector = asyncio.create_task(publish_at_random(world, luck))
        done = asyncio.Event()
        clients = [
            asyncio.create_task(follow_with_breaks(world, dice(seed * 1000 + number), done, slow))
            for number in range(CLIENTS)
        ]
        await write_at_random(world, luck)
        done.set()
        async with asyncio.timeout(30):
            results = await asyncio.gather(*clients)
        projector.cancel()
        await asyncio.wait([projector])
    for interest, first, seen in results:
        assert seen == wanted(world.written, interest, first), interest
    assert world.feed.connections == 0
    await until(lambda: not forwarding(), "every client's task has ended")


def forwarding() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "sse forward"]
