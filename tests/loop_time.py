"""How long an event loop is held at a time, in processor time and by the machine's own speed.

Neighbours of the machine do not count, except that they slow its caches and interrupt a turn once
in a while. So a bound grows with the machine's slowness, and a turn counts as too long only if it
is too long each time: what the code does, it does again.
"""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from service.runtime.tuning import uncollected

WORK, WORK_MS = 1_000_000, 35.0
WALK, WALK_MS = 30_000, 31.0
TRIES = 3


def slowness() -> float:
    """How many times longer this machine computes than the one that bounds are set on; 1 or more.

    Two kinds of work are timed. Neighbours hardly slow a count, which needs no memory; what a turn
    does to ten thousand tasks is slowed as much as a walk over as many objects, up to three times.
    """

    def counted() -> None:
        sum(number for number in range(WORK))

    objects = {f"t{number}": [number] for number in range(WALK)}
    names = list(objects)
    random.Random(1).shuffle(names)

    def walked() -> None:
        for _ in range(3):
            for name in names:
                objects[name] = [objects[name][0] + 1]

    count_ms = min(_took_ms(counted) for _ in range(3))
    walk_ms = statistics.median(_took_ms(walked) for _ in range(5))
    return max(count_ms / WORK_MS, walk_ms / WALK_MS, 1.0)


def _took_ms(work: Callable[[], None]) -> float:
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1000


class LoopTime:
    """How long the loop was held at a time, in seconds of its thread's processor time."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.turns = 0

    async def watch(self, pause_s: float) -> None:
        """Note the turns, with so many seconds of rest after each, until it is cancelled."""
        before = time.thread_time()
        while True:
            await asyncio.sleep(pause_s)
            now = time.thread_time()
            self.longest_s = max(self.longest_s, now - before)
            self.turns += 1
            before = now


@asynccontextmanager
async def watched(pause_s: float = 0) -> AsyncGenerator[LoopTime]:
    """Watch the loop inside the block: without ``pause_s`` it never rests.

    Nothing is collected there: this process has all tests in memory, and when garbage is collected
    is chosen elsewhere (`service.runtime.tuning`).
    """
    loop_time = LoopTime()
    with uncollected():
        watching = asyncio.create_task(loop_time.watch(pause_s))
        try:
            yield loop_time
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def longest_turn_s(story: Callable[[int], Awaitable[LoopTime]], bound_s: float) -> float:
    """The longest turn of the quickest of some tries; no further one once it is below the bound.

    ``story`` is given the number of its try. In seconds of the machine that the bound is set on.
    """
    least_s = float("inf")
    for number in range(TRIES):
        seen = await story(number)
        least_s = min(least_s, seen.longest_s / slowness())
        if least_s < bound_s:
            break
    return least_s
