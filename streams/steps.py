"""Long work as a generator that yields between short steps, turn by turn of the loop."""

import asyncio
from collections.abc import Generator
from time import monotonic
from typing import TypeVar

HELD_S = 0.004  # for how long steps hold the loop before it is given back
T = TypeVar("T")


async def in_turns(steps: Generator[None, None, T]) -> T:
    """All of ``steps``; the loop is given back whenever they have held it for `HELD_S`."""
    try:
        pause_at = monotonic() + HELD_S  # a loop's own clock may stand still during its turn
        while True:
            next(steps)
            if monotonic() >= pause_at:
                await asyncio.sleep(0)
                pause_at = monotonic() + HELD_S
    except StopIteration as end:
        return end.value
