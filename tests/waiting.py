"""Waiting for a condition within a bound, with a message that names it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

WITHIN_S = 30.0  # only what fails waits so long
SHORTEST_S, LONGEST_S = 0.005, 0.1
SHARE = 0.05  # of the time waited: what takes long is asked for seldom, and is seen hardly later

T = TypeVar("T")


def until(condition: Callable[[], T], within_s: float = WITHIN_S, what: str = "it is so") -> T:
    """The first true answer of `condition`; fails, saying what was waited for."""
    began = time.monotonic()
    while True:
        if answer := condition():
            return answer
        time.sleep(_pause(began, within_s, what))


async def eventually(
    condition: Callable[[], T], what: str = "it is so", within_s: float = WITHIN_S
) -> T:
    """The same beside everything else that runs on this loop."""
    began = time.monotonic()
    while True:
        if answer := condition():
            return answer
        await asyncio.sleep(_pause(began, within_s, what))


async def answered(
    ask: Callable[[], Awaitable[T]], what: str = "it is so", within_s: float = WITHIN_S
) -> T:
    """The same for a condition that is asked for, by HTTP or in a database."""
    began = time.monotonic()
    while True:
        if answer := await ask():
            return answer
        await asyncio.sleep(_pause(began, within_s, what))


def _pause(began: float, within_s: float, what: str) -> float:
    waited_s = time.monotonic() - began
    assert waited_s < within_s, f"not within {within_s:g} s: {what}"
    return min(max(SHORTEST_S, waited_s * SHARE), LONGEST_S)
