"""A log with two plans, and the names of what a client was sent."""

from projections.feed.limits import LIMITS, FeedLimits
from tests.unit.feed.world import (
    CLAIMED,
    HEARTBEAT,
    SUBMITTED,
    Watcher,
    World,
    until,
)


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
