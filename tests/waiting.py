"""Waiting for a condition within a bound, with a message that names it."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

WITHIN_S = 30.0  # only what fails waits so long
POLL_S = 0.005

T = TypeVar("T")


def until(condition: Callable[[], T], within_s: float = WITHIN_S, what: str = "it is so") -> T:
    """The first true answer of `condition`; fails, saying what was waited for."""
    deadline = time.monotonic() + within_s
    while True:
        if answer := condition():
            return answer
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(POLL_S)


async def eventually(
    condition: Callable[[], T], what: str = "it is so", within_s: float = WITHIN_S
) -> T:
    """The same beside everything else that runs on this loop."""
    deadline = time.monotonic() + within_s
    while True:
        if answer := condition():
            return answer
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(POLL_S)
