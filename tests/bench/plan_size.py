"""Whether the cost of a fact grows with its plan: the largest plan against many small ones."""

import asyncio
import time
from collections.abc import AsyncGenerator
from statistics import median

from service.core.answers import Submission
from streams.log import Origin
from streams.plan.events import Submitted, TaskSpec
from streams.plan.limits import MAX_TASKS
from tests.bench import bed
from tests.bench.cycles import NO_EXECUTOR, ROUNDS, work_through
from tests.bench.report import Result, progress, spread

WORKERS = 64
SMALL = 50  # plans that have as many tasks together


class Holds:
    """How long the loop has been held in one go, in milliseconds."""

    def __init__(self) -> None:
        self.longest_ms = 0.0

    async def watch(self) -> None:
        """Ask for a turn of the loop again and again, until cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            self.longest_ms = max(self.longest_ms, (time.perf_counter() - began) * 1000)


def fan(tasks: int) -> Submitted:
    """One root, many in parallel, one join."""
    middle = tuple(f"m{n}" for n in range(tasks - 2))
    return Submitted(
        tasks=(
            TaskSpec(id="root", kind="bench"),
            *(TaskSpec(id=each, kind="bench", depends_on=("root",)) for each in middle),
            TaskSpec(id="join", kind="bench", depends_on=middle),
        )
    )


async def rate(plans: list[tuple[str, Submitted]]) -> float:
    """Tasks per second of `WORKERS` workers."""
    with bed.nats() as server:
        async with bed.instance(server.url, NO_EXECUTOR) as it:
            took_s = await work_through(it.core, plans, WORKERS)
    return sum(len(plan.tasks) for _, plan in plans) / took_s


async def held_ms(plan: Submitted) -> float:
    """The longest hold of the loop while ``plan`` is submitted and folded."""
    with bed.nats() as server:
        async with bed.instance(server.url, NO_EXECUTOR) as it:
            holds = Holds()
            watching = asyncio.create_task(holds.watch())
            answer = await it.core.submit("wide", plan, Origin(actor="bench"))
            watching.cancel()
            if not isinstance(answer, Submission):
                raise TypeError(answer)
    return holds.longest_ms


async def measure(scale: float) -> AsyncGenerator[Result]:
    """As many tasks as a plan may have in one plan, and in `SMALL`."""
    size = max(int(MAX_TASKS * scale), 4 * SMALL)
    many: list[float] = []
    one: list[float] = []
    holds_ms: list[float] = []
    for n in range(ROUNDS):
        progress(f"one large plan and many small ones, round {n + 1} of {ROUNDS}")
        many.append(await rate([(f"p{n}", fan(size // SMALL)) for n in range(SMALL)]))
        one.append(await rate([("wide", fan(size))]))
        holds_ms.append(await held_ms(fan(size)))
    shares = [a / b for a, b in zip(one, many, strict=True)]
    yield Result(
        measure=f"one plan of {size:,} tasks against {SMALL} of {size // SMALL}",
        value=median(shares),
        unit="ratio",
        at_least=0.8,
        bound=True,
        seen={**spread(shares), "one_per_s": median(one), "many_per_s": median(many)},
    )
    yield Result(
        measure=f"  loop held in one go while a plan of {size:,} is submitted",
        value=median(holds_ms),
        unit="ms",
        at_most=20,
        seen=spread(holds_ms),
    )
