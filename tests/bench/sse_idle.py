"""8,000 clients that wait: what each costs in memory, all in CPU, and the API in latency."""

import asyncio
import time
from collections.abc import AsyncGenerator

from streams.jetstream.log import JetStreamLog
from tests.bench import bed, sse_bed, sse_log
from tests.bench.report import Result, percentile

CLIENTS = 10_000
QUIET_S = 16.0  # one period of pings and a little more
ASKS = 600
PAUSE_S = 0.01


async def api_times(port: int, asks: int) -> list[float]:
    """Milliseconds of each of so many reads, one after the other with pauses between."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times: list[float] = []
    for _ in range(asks):
        began = time.perf_counter()
        writer.write(b"GET /v1/plans/p0/tasks/t0 HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % port)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head)
        lower = head.lower()
        start = lower.index(b"content-length:") + 15
        await reader.readexactly(int(lower[start : lower.index(b"\r", start)]))
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(PAUSE_S)
    writer.close()
    return times


async def measure(scale: float) -> AsyncGenerator[Result]:
    """The same instance before and with them."""
    clients, asks = max(int(CLIENTS * scale), 10), max(int(ASKS * scale), 100)
    with bed.nats() as server:
        log = await JetStreamLog.connect(server.url)
        await sse_log.fill(log, 1_000)
        async with sse_bed.service(server.url) as process:
            port = sse_bed.port_of(process)
            cost = sse_bed.Cost(process.pid)
            await api_times(port, 100)  # warm
            without = await api_times(port, asks)
            await asyncio.sleep(1)
            cost.restart()
            await asyncio.sleep(3)
            alone, before = cost.busy, cost.memory_bytes
            async with sse_bed.Generator("sse_crowd", port, "/v1/events", clients) as crowd:
                cost.restart()
                await asyncio.sleep(QUIET_S)
                busy, held = cost.busy, cost.memory_bytes - before
                times = await api_times(port, asks)
                seen = await crowd.ask()
        await log.close()
    if seen["ended"]:
        raise RuntimeError(f"{seen['ended']} idle clients were ended")
    yield Result(
        measure=f"SSE memory of each of {clients} idle clients",
        value=held / clients / 1000,
        unit="kB",
        at_most=40,
        seen={"all_mb": held / 1e6},
        limit="what uvicorn, uvloop and Litestar hold for an open request (transport, parser, "
        "scope, two tasks); the feed's own part is one small object in two dictionaries",
    )
    yield Result(
        measure="  CPU of the service while they wait",
        value=busy * 100,
        unit="% of core",
        at_most=10,
        seen={"without_them": alone * 100},
        limit="pings: one write to each socket in each period, spread over it",
    )
    yield Result(
        measure="  API p99 with them, against without",
        value=percentile(times, 0.99) / percentile(without, 0.99),
        unit="ratio",
        at_most=2,
        seen={
            "p99_ms": percentile(times, 0.99),
            "p99_without_ms": percentile(without, 0.99),
            "p50_ms": percentile(times, 0.5),
            "p50_without_ms": percentile(without, 0.5),
        },
        limit="32 of the clients are pinged in one go, which the loop does meanwhile",
    )
