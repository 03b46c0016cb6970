"""An idle instance: from submitting a plan to the first instruction of its handler."""

import asyncio
import time
from collections.abc import AsyncGenerator

from streams.log import Origin
from streams.plan.events import Submitted, TaskSpec
from tests.bench import bed
from tests.bench.report import Result, percentile

STARTED: dict[str, float] = {}


async def measure(scale: float) -> AsyncGenerator[Result]:
    """One task at a time, the executor waiting for it."""
    times: list[float] = []
    with bed.nats() as server:
        flags = {"executor.handlers": ("tests.bench.stopwatch",)}
        async with bed.instance(server.url, flags=flags) as it:
            for n in range(int(300 * scale) + 20):
                plan = Submitted(tasks=(TaskSpec(id="only", kind="stopwatch"),))
                began = time.perf_counter()
                await it.core.submit(f"s{n}", plan, Origin(actor="bench"))
                while f"s{n}" not in STARTED:
                    await asyncio.sleep(0.0005)
                times.append((STARTED[f"s{n}"] - began) * 1000)
                await asyncio.sleep(0.005)
    times = times[20:]
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
