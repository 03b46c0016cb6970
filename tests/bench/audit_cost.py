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
from statistics import median

from service.core.core import Core
from service.signals import logs
from tests.bench import bed
from tests.bench.cycles import NO_EXECUTOR, TASKS_PER_PLAN, plan_of, work_through
from tests.bench.report import Result, progress, spread

WORKERS = 64
ROUNDS = 5  # interleaved; the ratios are those of each round, for a machine has slower minutes
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
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu: dict[str, list[float]] = {way: [] for way in WAYS}
    for n in range(ROUNDS):
        progress(f"life cycles with and without an audit trail, round {n + 1} of {ROUNDS}")
        for way in WAYS:
            speed, cpu_us = await _round(way, plans)
            speeds[way].append(speed)
            cpu[way].append(cpu_us)
    for way in list(WAYS)[1:]:
        ratios = _ratios(speeds[way], speeds["off"])
        yield Result(
            measure=f"life cycles with the audit trail {way}, against off",
            value=median(ratios),
            unit="ratio",
            at_least=0.9,
            seen={
                **spread(ratios),
                "tasks_per_s": median(speeds[way]),
                "cpu_us_per_task": median(cpu[way]),
                "cpu_ratio": median(_ratios(cpu[way], cpu["off"])),
            },
        )


async def _round(way: str, plans: int) -> tuple[float, float]:
    """Tasks per second, and the CPU of this process for each."""
    with bed.nats() as server:
        async with bed.instance(server.url, NO_EXECUTOR, WAYS[way]) as it:
            work = [(f"p{n}", plan_of(TASKS_PER_PLAN)) for n in range(plans)]
            tasks, began = plans * TASKS_PER_PLAN, time.process_time()
            took_s = await work_through(it.core, work, WORKERS)
            await _kept(it.core, ENTRIES[way] * tasks)
            return tasks / took_s, (time.process_time() - began) / tasks * 1e6


def _ratios(these: list[float], those: list[float]) -> list[float]:
    return [a / b for a, b in zip(these, those, strict=True)]


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
