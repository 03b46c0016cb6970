"""Rebuilding the read models from sequence 1, against only reading the same stream."""

import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from projections.read_models.restore import open_read_models
from service.cli.refold import refold
from streams.jetstream.log import JetStreamLog
from tests.bench import bed
from tests.bench.cycles import NO_EXECUTOR, TASKS_PER_PLAN, plan_of, work_through
from tests.bench.report import Result


async def measure(scale: float) -> AsyncGenerator[Result]:
    """A log of finished and unfinished plans."""
    tasks = int(30_000 * scale) // TASKS_PER_PLAN * TASKS_PER_PLAN
    with bed.nats() as server:
        async with bed.instance(server.url, NO_EXECUTOR) as it:
            plans = [(f"p{n}", plan_of(TASKS_PER_PLAN)) for n in range(tasks // TASKS_PER_PLAN)]
            await work_through(it.core, plans, 256)
        log = await JetStreamLog.connect(server.url)
        head = (await log.state()).head
        began, seen = time.perf_counter(), 0
        async for batch in log.follow(0):
            seen += len(batch)
            if batch[-1].sequence >= head:
                break
        bare = seen / (time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as folder:
            database = await open_read_models(Path(folder) / "rebuilt.sqlite")
            cpu = time.process_time()
            rebuilt = await refold(log, database, head)
            cpu = time.process_time() - cpu
            await database.close()
        await log.close()
    rate = head / rebuilt.took_s
    yield Result(
        measure="rebuild from sequence 1",
        value=rate,
        unit="events/s",
        at_least=40_000,
        seen={"events": head, "cpu_us_per_event": cpu / head * 1e6},
    )
    yield Result(
        measure="  against a bare read of the same stream",
        value=rate / bare,
        unit="ratio",
        at_least=0.3,
        seen={"bare_per_s": bare},
    )
