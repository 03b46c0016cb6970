"""`make bench`: runs every measurement, prints JSON lines on stdout and a table on stderr."""

import argparse
import asyncio
from collections.abc import AsyncGenerator, Callable

import uvloop

from service.runtime.tuning import collect_seldom, switch_often
from tests.bench import (
    access_cost,
    audit_cost,
    cycles,
    executor,
    hosts,
    memory,
    over_http,
    page,
    plan_size,
    rebuilds,
    retention,
    sse_fanout,
    sse_idle,
    sse_latency,
    sse_replay,
    start_latency,
    waiting,
    worker_kit,
)
from tests.bench.report import Result, progress, say, table

MEASURES: dict[str, Callable[[float], AsyncGenerator[Result]]] = {
    "cycles": cycles.measure,
    "access": access_cost.measure,
    "executor": executor.measure,
    "hosts": hosts.measure,
    "waiting": waiting.measure,
    "audit": audit_cost.measure,
    "http": over_http.measure,
    "worker_kit": worker_kit.measure,
    "start": start_latency.measure,
    "rebuild": rebuilds.measure,
    "retention": retention.measure,
    "plan_size": plan_size.measure,
    "memory": memory.measure,
    "page": page.measure,
    "sse_replay": sse_replay.measure,
    "sse_fanout": sse_fanout.measure,
    "sse_idle": sse_idle.measure,
    "sse_latency": sse_latency.measure,
}


async def main() -> None:
    """Run what was asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join(MEASURES))
    parser.add_argument("--scale", type=float, default=1.0, help="size of the loads (default 1)")
    arguments = parser.parse_args()
    unknown = set(arguments.measures) - set(MEASURES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    results: list[Result] = []
    for name in arguments.measures or MEASURES:
        progress(name)
        async for result in MEASURES[name](arguments.scale):
            results.append(say(result))
            await asyncio.sleep(0)
    table(results)


collect_seldom()  # as a served instance does
switch_often()
uvloop.run(main())
