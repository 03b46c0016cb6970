"""How much longer things take here and now, because others use the machine."""

import time
from collections.abc import Callable
from typing import TypeVar

# Alerts and findings that are true where others keep the machine busy.
HELD = frozenset({"LoopLagHigh", "DaemonLate"})
COUNTED = 200_000
ROUNDS = 10
BUSY = 2.0  # a machine that stretches by this much or more is held by others
LOOKS = 5

T = TypeVar("T")


def stretch() -> float:
    """By how much a wall clock outruns the processor time of a piece of work; at least 1.

    A bound in seconds that is promised for a machine of one's own is multiplied with it. Ask when
    the time has just been taken: about 0.1 s of work.
    """
    began, computing = time.monotonic(), time.thread_time()
    for _ in range(ROUNDS):
        sum(number for number in range(COUNTED))
        time.sleep(0)
    took_s, computed_s = time.monotonic() - began, time.thread_time() - computing
    return max(took_s / computed_s, 1.0)


def seen_in_time(look: Callable[[], T], is_good: Callable[[T], bool]) -> T:
    """What ``look`` answers; asked a few times more while that is not good and others hold us up.

    For what has bounds in seconds of its own: a held machine may exceed them once.
    """
    for _ in range(LOOKS - 1):
        seen = look()
        if is_good(seen) or stretch() < BUSY:
            return seen
    return look()
