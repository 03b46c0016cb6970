"""An idle instance: from submitting a plan to the first instruction of its handler."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from streams.log import Origin
from streams.plan.events import Submitted, TaskSpec
from tests.bench import bed
from tests.bench.report import Result, percentile

WARM_UP = 20
IDLE_S = 0.02  # between two plans, so that each finds an instance at rest

ON_START: list[Callable[[float], object]] = []
"""Told the time by the handler, which runs in this process."""


async def measure(scale: float) -> AsyncGenerator[Result]:
    """One task at a time, the executor waiting for it."""
    loop = asyncio.get_running_loop()
    started: asyncio.Queue[float] = asyncio.Queue()
    ON_START.append(lambda at: loop.call_soon_threadsafe(started.put_nowait, at))
    times: list[float] = []
    with bed.nats() as server:
        flags = {
            "executor.handlers": ("tests.bench.stopwatch",),
            "executor.worker.processes": 0,  # the handler tells this process
        }
        async with bed.instance(server.url, flags=flags) as it:
            for n in range(int(300 * scale) + WARM_UP):
                plan = Submitted(tasks=(TaskSpec(id="only", kind="stopwatch"),))
                began = time.perf_counter()
                await it.core.submit(f"s{n}", plan, Origin(actor="bench"))
                times.append((await started.get() - began) * 1000)
                await asyncio.sleep(IDLE_S)
    times = times[WARM_UP:]
    yield Result(
        measure="idle submit to first instruction, p50",
        value=percentile(times, 0.5),
        unit="ms",
        at_most=4,
        seen={"n": len(times)},
    )
    yield Result(
        measure="idle submit to first instruction, p99",
        value=percentile(times, 0.99),
        unit="ms",
        at_most=10,
        seen={"max_ms": max(times)},
    )
