"""Forgetting plans that ended: tasks a second, the API beside it, and what space comes back.

Plans of five tasks, with and without an archive, and plans of one; all of them are removed as well.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from service.daemons.removals import RemovalLimits
from service.daemons.retention import Retention, RetentionLimits
from streams.jetstream.access import URL_ALONE
from streams.jetstream.forgetting import Purger
from streams.jetstream.log import JetStreamLog
from streams.log import Log
from streams.plan.events import Claimed, Completed, Finished, Raw, Submitted, TaskSpec
from tests.appending import append
from tests.bench import bed
from tests.bench.report import Result, percentile

SHAPES = ((20_000, 5, False), (20_000, 5, True), (40_000, 1, False))
"""How many plans, of how many tasks, and whether they are archived before."""
AT_ONCE = 200  # plans written together
LIMITS = RetentionLimits(plans=500)
AT_ONCE_LIMITS = RetentionLimits(plans=500, removal=RemovalLimits(wait_s=-60.0))
PAUSE_S = 0.005  # between two requests beside the work


class Space(NamedTuple):
    """What the log takes: on disk, and in the memory of nats-server; in MB."""

    disk: float
    memory: float


def space(pid: int) -> Space:
    server = psutil.Process(pid)
    folder = Path(server.cmdline()[server.cmdline().index("--store_dir") + 1])
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Space(disk / 1e6, server.memory_info().rss / 1e6)


def cpu_s(pid: int) -> float:
    """The CPU time that a process has used."""
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


async def write_plan(log: Log, plan_id: str, size: int) -> int:
    """Append that a plan was submitted; answers the sequence."""
    names = [f"t{number}" for number in range(size)]
    tasks = tuple(TaskSpec(id=name, kind="bench", input=Raw(b'{"n": 1}')) for name in names)
    return await append(log, plan_id, None, 0, Submitted(tasks=tasks))


async def write_ended_plan(log: Log, plan_id: str, size: int) -> None:
    """Append all facts of a plan whose ``size`` tasks have completed."""
    names = [f"t{number}" for number in range(size)]
    first = await write_plan(log, plan_id, size)
    claimed = Claimed(owner="w", attempt=1, lease_s=600, started=True)
    ended = Completed(owner="w", attempt=1, output=Raw(b'{"answer": 42}'))
    await asyncio.gather(*(append(log, plan_id, name, 0, claimed, ended) for name in names))
    await append(log, plan_id, None, first, Finished(status="COMPLETED"))


async def times_of_requests(url: str, until: asyncio.Event) -> list[float]:
    """How long reads of one plan took, in ms, one after the other."""
    times: list[float] = []
    async with httpx.AsyncClient(base_url=url) as client:
        while not until.is_set():
            began = time.perf_counter()
            assert (await client.get("/v1/plans/kept")).status_code == 200
            times.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(PAUSE_S)
    return times


async def measure(scale: float) -> AsyncGenerator[Result]:
    """All plans of a log are forgotten in one go, in each of the shapes."""
    for at_full_size, size, archived in SHAPES:
        plans = int(at_full_size * scale)
        with bed.nats() as server, tempfile.TemporaryDirectory() as folder:
            log = await JetStreamLog.connect(server.url)
            for start in range(0, plans, AT_ONCE):
                some = range(start, min(start + AT_ONCE, plans))
                await asyncio.gather(*(write_ended_plan(log, f"p{n}", size) for n in some))
            await write_plan(log, "kept", 1)
            await log.close()
            async with bed.instance(server.url) as it:
                assert isinstance(it.core.log, JetStreamLog)
                calm = asyncio.Event()
                asyncio.get_running_loop().call_later(2.0, calm.set)
                before = await times_of_requests(it.http_url, calm)
                full, ended = space(server.pid), asyncio.Event()
                asking = asyncio.create_task(times_of_requests(it.http_url, ended))
                began, used = time.perf_counter(), (cpu_s(server.pid), time.process_time())
                for limits in (LIMITS, AT_ONCE_LIMITS):
                    retention = Retention(
                        it.core,
                        lambda url=server.url: Purger.open(url, timeout_s=5, access=URL_ALONE),
                        it.core.log.note_forgotten,
                        keep_s=0.0,
                        archive_dir=Path(folder) if archived else None,
                        limits=limits,
                    )
                    try:
                        await retention.turn()
                    finally:
                        await retention.close()  # a client without its server would try for ever
                took_s = time.perf_counter() - began
                server_s = cpu_s(server.pid) - used[0]
                own_s = time.process_time() - used[1]
                ended.set()
                beside = await asking
                assert it.core.conditions.retention_trouble is None
                left = space(server.pid)
        tasks = plans * size
        yield Result(
            measure="tasks forgotten"
            + (", archived before" if archived else "")
            + (", plans of one task" if size == 1 else ""),
            value=tasks / took_s,
            unit="tasks/s",
            at_least=2_000 if not archived else None,
            seen={
                "tasks": tasks,
                "plans_per_s": plans / took_s,
                "server_cpu_us_per_task": server_s / tasks * 1e6,
                "own_cpu_us_per_task": own_s / tasks * 1e6,  # with the requests beside it
            },
        )
        yield Result(
            measure="  reads of the API beside it, p99",
            value=percentile(beside, 0.99),
            unit="ms",
            seen={"calm": percentile(before, 0.99), "p50": percentile(beside, 0.5)},
        )
        yield Result(
            measure="  disk of the log after it, against before",
            value=left.disk / full.disk,
            unit="ratio",
            seen={
                "before_mb": full.disk,
                "after_mb": left.disk,
                "memory_before_mb": full.memory,
                "memory_after_mb": left.memory,
            },
        )
