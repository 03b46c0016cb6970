"""What every peer is given: the same tasks, submitted beside the work, and one clock.

Runs in the peer's own environment, so it imports nothing but Python's own library. A peer's module
is started as `python -m tests.bench.peers.on_NAME WHERE TASKS WORKERS [EXTRA]`.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

TEXT = "x" * 120  # the input of each task, and its result
SUBMITTERS = 16


class Asked(NamedTuple):
    """The command line: where the server is, how many tasks, and how many run at once."""

    where: str
    tasks: int
    workers: int
    extra: str


def asked() -> Asked:
    """What this process was asked for."""
    where, tasks, workers, *extra = sys.argv[1:]
    return Asked(where, int(tasks), int(workers), extra[0] if extra else "")


class Recorded:
    """Counts results that the peer has recorded."""

    def __init__(self) -> None:
        self._count, self._wanted = 0, 0
        self._reached = asyncio.Event()

    def note(self) -> None:
        """One more."""
        self._count += 1
        if self._count == self._wanted:
            self._reached.set()

    async def reach(self, count: int) -> None:
        """Wait for the result of that number."""
        self._wanted = count
        self._reached.clear()
        if self._count < count:
            await self._reached.wait()


async def measure(
    tasks: int,
    submit: Callable[[], Awaitable[object]],
    reach: Callable[[int], Awaitable[None]],
) -> None:
    """Print how many tasks per second went from submission to a recorded result.

    One task goes before, so that all connections and scripts are there when the clock begins.
    """
    left = iter(range(tasks))

    async def submitter() -> None:
        for _ in left:
            await submit()

    await submit()
    await reach(1)
    began = time.perf_counter()
    await asyncio.gather(reach(tasks + 1), *(submitter() for _ in range(SUBMITTERS)))
    print(json.dumps({"tasks_per_s": tasks / (time.perf_counter() - began)}), flush=True)
