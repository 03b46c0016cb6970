"""Whether claims that wait cost those that work: many kinds with an orphan task, and one kind."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from statistics import median

from service.core.answers import ClaimRequest
from service.core.core import Core
from streams.log import Origin
from streams.plan.events import Submitted, TaskSpec
from tests.bench import bed
from tests.bench.cycles import NO_EXECUTOR, ROUNDS, plan_of, work_through
from tests.bench.report import Result, progress, spread

WORKERS = 64
WAIT_S = 30.0
TASKS_PER_PLAN = 100
ORPHAN = Submitted(tasks=(TaskSpec(id="only", kind="orphan"),))


@asynccontextmanager
async def crowd(core: Core, kinds: list[str]) -> AsyncGenerator[None]:
    """Claims that wait, one for each of ``kinds``, and a task that none of them takes."""
    origin = Origin(actor="crowd")
    waiting = [
        asyncio.create_task(
            core.claim(ClaimRequest(owner=f"c{n}", kinds=(kind,), wait_s=WAIT_S), origin)
        )
        for n, kind in enumerate(kinds)
    ]
    await core.submit("orphan", ORPHAN, origin)
    try:
        yield
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)


async def rate(tasks: int, kinds: list[str]) -> float:
    """Tasks per second of `WORKERS` workers beside claims that wait for ``kinds``."""
    plans = [(f"p{n}", plan_of(TASKS_PER_PLAN)) for n in range(tasks // TASKS_PER_PLAN)]
    with bed.nats() as server:
        async with bed.instance(server.url, NO_EXECUTOR) as it:
            if not kinds:
                return tasks / await work_through(it.core, plans, WORKERS, kinds=("bench",))
            async with crowd(it.core, kinds):
                return tasks / await work_through(it.core, plans, WORKERS, kinds=("bench",))


async def measure(scale: float) -> AsyncGenerator[Result]:
    """The ratio to the same work with no claim that waits."""
    tasks = max(int(5_000 * scale) // TASKS_PER_PLAN, 1) * TASKS_PER_PLAN
    crowds = {
        "1,500 claims that wait for 1,500 kinds": [f"k{n}" for n in range(1_500)],
        "400 claims that wait for one kind": ["other"] * 400,
    }
    alone: list[float] = []
    beside: dict[str, list[float]] = {name: [] for name in crowds}
    for n in range(ROUNDS):
        progress(f"life cycles beside claims that wait, round {n + 1} of {ROUNDS}")
        alone.append(await rate(tasks, []))
        for name, kinds in crowds.items():
            beside[name].append(await rate(tasks, kinds))
    for name, rates in beside.items():
        shares = [a / b for a, b in zip(rates, alone, strict=True)]
        yield Result(
            measure=f"life cycles beside {name} and an orphan task, against none",
            value=median(shares),
            unit="ratio",
            at_least=0.8,
            bound=True,
            seen={**spread(shares), "tasks_per_s": median(rates), "alone_per_s": median(alone)},
        )
