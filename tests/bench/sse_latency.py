"""One idle client: from the call of append to the first byte of the event at its socket."""

import asyncio
import time
from collections.abc import AsyncGenerator

from streams.jetstream.log import JetStreamLog
from tests.bench import bed, sse_bed
from tests.bench.report import Result, percentile
from tests.bench.sse_fanout import Writer

WARM_UP = 30
IDLE_S = 0.02  # between two events, so that each finds an instance at rest
MARK = b"event: task.progress\n"


class Ear(asyncio.Protocol):
    """The client: notes when an event's first bytes come."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[float] = asyncio.Queue()

    def data_received(self, data: bytes) -> None:
        """Tell the time before anything else."""
        now = time.perf_counter()
        if MARK in data:
            self.heard.put_nowait(now)


async def measure(scale: float) -> AsyncGenerator[Result]:
    """One event at a time."""
    times: list[float] = []
    appends: list[float] = []
    with bed.nats() as server:
        log = await JetStreamLog.connect(server.url)
        writer = Writer(log)
        await writer.begin()
        async with sse_bed.service(server.url) as process:
            connect = asyncio.get_running_loop().create_connection
            port = sse_bed.port_of(process)
            wire, ear = await connect(Ear, "127.0.0.1", port)
            wire.write(b"GET /v1/events?plan_id=fan HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % port)
            await asyncio.sleep(0.5)
            for _ in range(int(400 * scale) + WARM_UP):
                began = time.perf_counter()
                await writer.write()
                appends.append((time.perf_counter() - began) * 1000)
                times.append((await ear.heard.get() - began) * 1000)
                await asyncio.sleep(IDLE_S)
            wire.close()
        await log.close()
    times, appends = times[WARM_UP:], appends[WARM_UP:]
    yield Result(
        measure="SSE append to first byte at an idle client, p50",
        value=percentile(times, 0.5),
        unit="ms",
        at_most=3,
        seen={"n": len(times), "append_alone_ms": percentile(appends, 0.5)},
        limit="the append itself with its fsync, then two hops between processes (log to "
        "instance, instance to client) of which each wakes a loop",
    )
    yield Result(
        measure="SSE append to first byte at an idle client, p99",
        value=percentile(times, 0.99),
        unit="ms",
        at_most=10,
        seen={"max_ms": max(times), "append_alone_ms": percentile(appends, 0.99)},
        limit="as above, and whatever else the machine does then",
    )
