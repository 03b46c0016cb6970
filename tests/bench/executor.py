"""The executor running `echo`, with 8 and 64 threads, against the same life cycles in process."""

import asyncio
import time
from collections.abc import AsyncGenerator
from statistics import median

from service.core.core import Core
from streams.log import Fact, Origin
from streams.plan.events import Completed, Submitted, TaskSpec
from tests.bench import bed
from tests.bench.cycles import PAYLOAD, ROUNDS, TASKS_PER_PLAN, Rates, life_cycles
from tests.bench.report import Result, progress, spread

PATIENCE_S = 300.0


class Completions:
    """Counts completed tasks on the fold; ``over`` is set at the last."""

    def __init__(self, total: int) -> None:
        self.over = asyncio.Event()
        self._left = total

    def folded(self, _: Fact) -> None:
        self._left -= 1
        if not self._left:
            self.over.set()


async def echo(tasks: int, threads: int, processes: int = 0) -> Rates:
    """Submit plans of echo tasks to an instance with as many threads, and wait for the last.

    ``processes`` is `executor.worker.processes`; 0: the serving process has the threads.
    """
    plan = Submitted(
        tasks=tuple(TaskSpec(id=f"t{n}", kind="echo", input=PAYLOAD) for n in range(TASKS_PER_PLAN))
    )
    with bed.nats() as server:
        flags = {"executor.worker.core_size": threads, "executor.worker.processes": processes}
        async with bed.instance(server.url, flags=flags) as it:
            ready = Completions(1)  # a worker host takes a moment to start
            it.core.projector.listeners.add("ready", ready.folded, (Completed,))
            first = Submitted(tasks=(TaskSpec(id="first", kind="echo"),))
            await it.core.submit("first", first, Origin(actor="bench"))
            async with asyncio.timeout(PATIENCE_S):
                await ready.over.wait()
            done = Completions(tasks)
            it.core.projector.listeners.add("bench", done.folded, (Completed,))
            cpu, began = time.process_time(), time.perf_counter()
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(_submit(it.core, plan, tasks), done.over.wait())
            took_s, cpu = time.perf_counter() - began, time.process_time() - cpu
            events = it.core.board.sequence
    return Rates(
        tasks_per_s=tasks / took_s,
        events_per_s=events / took_s,
        cpu_us_per_task=cpu / tasks * 1e6,
        cpu_us_per_event=cpu / events * 1e6,
    )


async def _submit(core: Core, plan: Submitted, tasks: int) -> None:
    for n in range(tasks // TASKS_PER_PLAN):
        await core.submit(f"p{n}", plan, Origin(actor="bench"))


async def measure(scale: float) -> AsyncGenerator[Result]:
    """Tasks per second, and the ratio to 64 workers in process that start in their claims."""
    tasks = max(int(6_000 * scale) // TASKS_PER_PLAN, 1) * TASKS_PER_PLAN
    runs: dict[int, list[Rates]] = {8: [], 64: []}
    alone: list[Rates] = []
    for n in range(ROUNDS):
        progress(f"echo and life cycles, round {n + 1} of {ROUNDS}")
        for threads, rates in runs.items():
            rates.append(await echo(tasks, threads))
        alone.append(await life_cycles(tasks, 64, start_in_claim=True))
    for threads, rates in runs.items():
        speeds = [each.tasks_per_s for each in rates]
        shares = [a.tasks_per_s / b.tasks_per_s for a, b in zip(rates, alone, strict=True)]
        yield Result(
            measure=f"executor, echo, {threads} threads",
            value=median(speeds),
            unit="tasks/s",
            seen={
                **spread(speeds),
                "cpu_us_per_task": median([each.cpu_us_per_task for each in rates]),
            },
        )
        yield Result(
            measure="  against life cycles in process, 64 workers",
            value=median(shares),
            unit="ratio",
            at_least=0.8 if threads == 64 else None,
            seen=spread(shares),
        )
