"""1,000 clients on one plan, 50 events per second: every event to everyone, and how soon.

Where that is more than the machine can do, the highest rate is found that it sustains.
"""

import asyncio
import time
from collections.abc import AsyncGenerator

from msgspec import Raw

from streams.jetstream.log import JetStreamLog
from streams.plan.events import Claimed, Progress
from tests.bench import bed, sse_bed, sse_log
from tests.bench.report import Result

CLIENTS = 1_000
RATES = (50, 40, 30, 20, 10, 5)
SECONDS = 10.0
P99_MS = 250.0
SETTLE_S = 1.0


class Writer:
    """Appends progress of one task, each with the time at which its append began."""

    def __init__(self, log: JetStreamLog) -> None:
        self._log = log
        self._sequence = 0

    async def begin(self) -> None:
        """Make the plan, and claim its task."""
        await sse_log.append(self._log, "fan", None, 0, sse_log.submitted(1))
        claimed = Claimed(owner="w", attempt=1, lease_s=3_600)
        self._sequence = await sse_log.append(self._log, "fan", "t0", 0, claimed)

    async def write(self) -> None:
        """One event, now."""
        data = Raw(b'{"sent":%.6f,"text":"%b"}' % (time.monotonic(), b"x" * 100))
        event = Progress(owner="w", attempt=1, data=data)
        self._sequence = await sse_log.append(self._log, "fan", "t0", self._sequence, event)

    async def write_at(self, rate: int, seconds: float) -> int:
        """``rate`` events per second, evenly; how many."""
        began, count = time.perf_counter(), int(rate * seconds)
        for n in range(count):
            await asyncio.sleep(max(began + n / rate - time.perf_counter(), 0))
            await self.write()
        return count


async def measure(scale: float) -> AsyncGenerator[Result]:
    """From the aim downwards, until everything arrives in time."""
    clients, seconds = max(int(CLIENTS * scale), 10), SECONDS * min(scale, 1.0)
    with bed.nats() as server:
        log = await JetStreamLog.connect(server.url)
        writer = Writer(log)
        await writer.begin()
        async with sse_bed.service(server.url) as process:
            path = "/v1/events?plan_id=fan"
            port = sse_bed.port_of(process)
            cost = sse_bed.Cost(process.pid)
            async with sse_bed.Generator("sse_crowd", port, path, clients) as crowd:
                await writer.write_at(20, 1.0)  # warm
                await asyncio.sleep(SETTLE_S)
                rates, sustained = iter(RATES), False
                rate, busy, seen = 0, 0.0, {"events": 0}
                while not sustained and (rate := next(rates, 0)):
                    await crowd.ask()
                    cost.restart()
                    due = clients * await writer.write_at(rate, seconds)
                    busy = cost.busy
                    await asyncio.sleep(SETTLE_S)
                    seen = await crowd.ask()
                    sustained = seen["events"] == due and seen["p99_ms"] <= P99_MS
        await log.close()
    cpu_us = busy * seconds / max(seen["events"], 1) * 1e6
    yield Result(
        measure=f"SSE fan-out to {clients} clients, sustained",
        value=rate * clients,
        unit="deliv/s",
        at_least=50 * clients,
        seen={
            "rate": rate,
            "service_busy": busy,
            "cpu_us_per_delivery": cpu_us,
            "generator_cpu": seen["generator_cpu"],
        },
        limit=f"CPU of the service's loop, {cpu_us:.1f} µs a delivery: by py-spy mostly the "
        "kernel's write to one socket after the other, since the bytes are the same for all; "
        "under load events are gathered, so that one write carries several",
    )
    yield Result(
        measure="  append to socket, p99",
        value=seen["p99_ms"],
        unit="ms",
        at_most=P99_MS,
        seen={"p50_ms": seen["p50_ms"], "max_ms": seen["max_ms"]},
        limit="the round of 1,000 writes, and the rest of up to 50 ms that the feed leaves to "
        "all other work after each round",
    )
