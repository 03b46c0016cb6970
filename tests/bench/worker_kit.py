"""The worker kit over HTTP, compared with raw calls of the same run, and its heartbeats."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from statistics import median

from tests.bench import bed, child, kit_load
from tests.bench.child import WITHIN_S, answer_of
from tests.bench.cycles import NO_EXECUTOR
from tests.bench.over_http import load
from tests.bench.report import Result, progress, spread

ROUNDS = 3  # interleaved
TASKS = 15_000
SLOTS = 64
LEASES = 5_000
STARTS = 200
IDLE_S = 15.0


async def _kit(port: str, *arguments: object) -> dict[str, float]:
    return await answer_of("tests.bench.kit_load", port, *arguments)


async def _idle(port: str, seconds: int) -> dict[str, float]:
    """Idle leases, with the share of a core that their heartbeats take in this process."""
    program = child.process_of("tests.bench.kit_load", port, "idle", LEASES, seconds)
    async with asyncio.timeout(WITHIN_S), program as kit:
        assert kit.stdout is not None
        cpu = began = service_cpu = 0.0
        async for line in kit.stdout:
            match line.decode().strip():
                case kit_load.IDLE_BEGINS:
                    began, cpu = time.perf_counter(), time.process_time()
                case kit_load.IDLE_ENDS:
                    service_cpu = (time.process_time() - cpu) / (time.perf_counter() - began)
                case said:
                    return json.loads(said) | {"service_cpu": service_cpu}
    raise RuntimeError(f"the worker ended with {kit.returncode}")


async def noop(tasks: int, slots: int) -> dict[str, float]:
    """One run of no-op tasks, with the CPU that the service spent on each."""
    with bed.nats() as server:
        async with bed.instance(server.url, NO_EXECUTOR) as it:
            cpu = time.process_time()
            seen = await _kit(it.http_url.rsplit(":", 1)[1], "noop", tasks, slots)
            cpu = time.process_time() - cpu
    return seen | {"service_cpu_us_per_task": cpu / tasks * 1e6}


async def measure(scale: float) -> AsyncGenerator[Result]:
    """No-op tasks through the kit, and the cost of idle leases."""
    tasks = max(int(TASKS * scale), 1_000)
    raw: list[dict[str, float]] = []
    kit: list[dict[str, float]] = []
    for n in range(ROUNDS):
        progress(f"the worker kit and raw calls, round {n + 1} of {ROUNDS}")
        raw.append(await load("batch calls", tasks, 8))
        kit.append(await noop(tasks, SLOTS))
    speeds = [each["tasks_per_s"] for each in kit]
    yield Result(
        measure=f"no-op tasks through the worker kit, {SLOTS} slots",
        value=median(speeds),
        unit="tasks/s",
        at_least=3_000,
        seen={
            **spread(speeds),
            **{
                name: median([each[name] for each in kit])
                for name in ("service_cpu_us_per_task", "worker_cpu")
            },
        },
    )
    shares = [a["tasks_per_s"] / b["tasks_per_s"] for a, b in zip(kit, raw, strict=True)]
    yield Result(
        measure="worker kit compared with raw batch calls of the same run",
        value=median(shares),
        unit="of raw",
        at_least=0.7,
        seen={
            **spread(shares),
            "raw_tasks_per_s": median([each["tasks_per_s"] for each in raw]),
            "raw_cpu_us_per_task": median([each["service_cpu_us_per_task"] for each in raw]),
        },
    )
    with bed.nats() as server:
        async with bed.instance(server.url, NO_EXECUTOR) as it:
            first = await _kit(it.http_url.rsplit(":", 1)[1], "start", STARTS, SLOTS)
    yield Result(
        measure="worker kit: claim to the handler's first line, p50",
        value=first["p50_s"] * 1000,
        unit="ms",
        at_most=3,
        seen=first,
    )
    with bed.nats() as server:
        async with bed.instance(server.url, NO_EXECUTOR) as it:
            port = it.http_url.rsplit(":", 1)[1]
            idle = await _idle(port, int(IDLE_S * scale) or 1)
    for side in ("worker", "service"):
        yield Result(
            measure=f"heartbeats of {LEASES} idle leases in one kit, {side} side",
            value=idle[f"{side}_cpu"],
            unit="of a core",
            at_most=0.05,
            seen={"lost": idle["lost"]},
        )
