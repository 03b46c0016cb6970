"""What the audit trail costs: the same life cycles without it, with failures only, with all.

Lines, messages and rows of the trail are in it: what is still on its way when the work is done is
waited for, and the log lines are written, if to /dev/null.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from service.core.core import Core
from service.signals import logs
from tests.bench import bed
from tests.bench.cycles import NO_EXECUTOR, TASKS_PER_PLAN, plan_of, work_through
from tests.bench.report import Result, progress

WORKERS = 64
ROUNDS = 3  # interleaved, the best of each: the machine is not quiet
WAYS = {
    "off": {"observability.audit_log_enabled": False},
    "on": {},
    "on, success class too": {"observability.audit_success_log_enabled": True},
}
ENTRIES = {"off": 0, "on": 0, "on, success class too": 3}  # of each task: claimed, begun, done


async def measure(scale: float) -> AsyncGenerator[Result]:
    """Tasks per second in each way, and the ratio to none."""
    with Path(os.devnull).open("w") as sink:  # noqa: ASYNC230 - opens at once
        handler = logs.configure("bench", stream=sink)
        async for result in _measure(scale):
            yield result
        logging.getLogger().removeHandler(handler)
        handler.close()


async def _measure(scale: float) -> AsyncGenerator[Result]:
    plans = max(int(6_000 * scale) // TASKS_PER_PLAN, 1)
    best = dict.fromkeys(WAYS, 0.0)
    cpu = dict.fromkeys(WAYS, float("inf"))
    for n in range(ROUNDS):
        progress(f"life cycles with and without an audit trail, round {n + 1} of {ROUNDS}")
        for way, flags in WAYS.items():
            with bed.nats() as server:
                async with bed.instance(server.url, NO_EXECUTOR, flags) as it:
                    work = [(f"p{n}", plan_of(TASKS_PER_PLAN)) for n in range(plans)]
                    began = time.process_time()
                    took_s = await work_through(it.core, work, WORKERS)
                    await _kept(it.core, ENTRIES[way] * plans * TASKS_PER_PLAN)
                    cpu[way] = min(cpu[way], time.process_time() - began)
                    best[way] = max(best[way], plans * TASKS_PER_PLAN / took_s)
    for way in list(WAYS)[1:]:
        yield Result(
            measure=f"life cycles with the audit trail {way}, against off",
            value=best[way] / best["off"],
            unit="ratio",
            at_least=0.9,
            seen={"tasks_per_s": best[way], "cpu_ratio": cpu[way] / cpu["off"]},
        )


async def _kept(core: Core, entries: int) -> None:
    """Wait until as many entries are rows."""
    async with asyncio.timeout(60):
        while True:
            (rows,) = await core.database.read(
                "SELECT count(*) FROM audit", (), lambda _, found: int(found[0])
            )
            if rows >= entries:
                return
            await asyncio.sleep(0.05)
