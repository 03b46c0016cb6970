"""User code in worker hosts against the same on threads of the service: echo, starts, burners."""

import asyncio
import time
from collections.abc import AsyncGenerator
from statistics import median
from typing import Any, cast

import msgspec
from msgspec import Raw

from service.app import Instance
from streams.log import Origin
from streams.plan.events import Submitted, TaskSpec
from tests.bench import bed
from tests.bench.child import answer_of
from tests.bench.cycles import ROUNDS, TASKS_PER_PLAN, Rates, life_cycles
from tests.bench.executor import echo
from tests.bench.report import Result, percentile, progress, spread

DESIGNS = {"threads": 0, "hosts": -1}
THREADS = 64
PER_S = 500
LEASE_S = 3.0
WARM_UP_S = 1.0
PATIENCE_S = 60.0  # beyond a measurement's own time; then it fails
START = "agent.task.claim_to_start.latency"


class Starts:
    """The metrics of an executor, which also notes each time from claim to first instruction."""

    def __init__(self, metrics: Any) -> None:
        self.seconds: list[float] = []
        self._metrics = metrics

    def observe(self, name: str, value: float, **labels: Any) -> None:
        """See `service.signals.metrics.registry.Metrics`."""
        if name == START:
            self.seconds.append(value)
        self._metrics.observe(name, value, **labels)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._metrics, name)


async def starts(seconds: float, processes: int) -> list[float]:
    """Milliseconds from claim to first instruction, at `PER_S` single tasks a second."""
    plan = Submitted(tasks=(TaskSpec(id="only", kind="echo"),))
    flags = {"executor.worker.core_size": THREADS, "executor.worker.processes": processes}
    with bed.nats() as server:
        async with bed.instance(server.url, flags=flags) as it:
            noted = _noting(it)
            await _submit_at_rate(it, "w", plan, WARM_UP_S)
            noted.seconds.clear()
            await _submit_at_rate(it, "p", plan, seconds)
            async with asyncio.timeout(PATIENCE_S):
                while len(noted.seconds) < seconds * PER_S * 0.99:
                    await asyncio.sleep(0.01)
    return [each * 1000 for each in noted.seconds]


def _noting(it: Instance) -> Starts:
    assert it.executor is not None
    noted = Starts(it.executor.metrics)
    it.executor.metrics = cast("Any", noted)
    return noted


async def _submit_at_rate(it: Instance, name: str, plan: Submitted, seconds: float) -> None:
    began = time.perf_counter()
    async with asyncio.TaskGroup() as submits:
        for n in range(int(seconds * PER_S)):
            submits.create_task(it.core.submit(f"{name}{n}", plan, Origin(actor="bench")))
            await asyncio.sleep(max(began + n / PER_S - time.perf_counter(), 0))


async def beside_burners(seconds: float, processes: int) -> dict[str, float]:
    """The API's p99 at rest and beside `THREADS` handlers that compute, and the leases lost."""
    spec = Raw(msgspec.json.encode({"seconds": seconds + 2}))
    plan = Submitted(
        tasks=tuple(TaskSpec(id=f"t{n}", kind="bench_burns", input=spec) for n in range(THREADS))
    )
    flags = {
        "executor.worker.core_size": THREADS,
        "executor.worker.processes": processes,
        "executor.handlers": ("tests.bench.burner",),
        "executor.drain_s": 0,  # the burners are to end with their measurement
        "executor.claim.lease_s": LEASE_S,
        "executor.claim.heartbeat_s": LEASE_S / 3,
    }
    with bed.nats() as server:
        async with bed.instance(server.url, flags=flags) as it:
            idle = await _probed(it, seconds / 3)
            await it.core.submit("burning", plan, Origin(actor="bench"))
            burning = it.core.board.plans["burning"]  # it may fail, and leave the board
            await asyncio.sleep(WARM_UP_S)
            busy = await _probed(it, seconds)
            lost = sum(task.lost for task in burning.tasks.values())
    p99 = percentile(idle, 0.99), percentile(busy, 0.99)
    return {"ratio": p99[1] / p99[0], "idle_ms": p99[0], "busy_ms": p99[1], "lost": lost}


async def _probed(it: Instance, seconds: float) -> list[float]:
    port = it.http_url.rsplit(":", 1)[1]
    return await answer_of("tests.bench.probe", port, seconds, within_s=seconds + PATIENCE_S)


async def measure(scale: float) -> AsyncGenerator[Result]:
    """Both designs in turn; the aims are those of the hosts."""
    tasks = max(int(6_000 * scale) // TASKS_PER_PLAN, 1) * TASKS_PER_PLAN
    echoes: dict[str, list[Rates]] = {name: [] for name in DESIGNS}
    alone: list[Rates] = []
    for n in range(ROUNDS):
        progress(f"echo and life cycles, round {n + 1} of {ROUNDS}")
        for name, processes in DESIGNS.items():
            echoes[name].append(await echo(tasks, THREADS, processes))
        alone.append(await life_cycles(tasks, THREADS, start_in_claim=True))
    for name, rates in echoes.items():
        shares = [a.tasks_per_s / b.tasks_per_s for a, b in zip(rates, alone, strict=True)]
        yield Result(
            measure=f"echo on {name} against life cycles in process",
            value=median(shares),
            unit="ratio",
            at_least=0.8 if name == "hosts" else None,
            seen={**spread(shares), "tasks_per_s": median([each.tasks_per_s for each in rates])},
        )
    for name, processes in DESIGNS.items():
        progress(f"claim to first instruction, {name}, {10 * scale:g} s")
        took_ms = await starts(10 * scale, processes)
        for share, most in ((0.5, 2.5), (0.99, 5.0)):
            yield Result(
                measure=f"{name}, claim to first instruction, p{share * 100:g}",
                value=percentile(took_ms, share),
                unit="ms",
                at_most=most if name == "hosts" else None,
                seen={"n": len(took_ms), "tasks_per_s": PER_S},
            )
    for name, processes in DESIGNS.items():
        progress(f"the API beside burners, {name}, {80 * scale:g} s")
        seen = await beside_burners(60 * scale, processes)
        yield Result(
            measure=f"{name}, API p99 beside {THREADS} burners, to idle",
            value=seen["ratio"],
            unit="ratio",
            at_most=1.5 if name == "hosts" else None,
            seen=seen,
        )
        yield Result(
            measure=f"{name}, leases of {LEASE_S:g} s lost beside them",
            value=seen["lost"],
            unit="leases",
            at_most=0,
        )
