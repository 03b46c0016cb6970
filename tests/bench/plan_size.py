"""Whether the cost of a fact grows with its plan: one wide plan against many small ones."""

from collections.abc import AsyncGenerator

from streams.plan.events import Submitted, TaskSpec
from tests.bench import bed
from tests.bench.cycles import NO_EXECUTOR, work_through
from tests.bench.report import Result

WORKERS = 64


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


async def _rate(plans: list[tuple[str, Submitted]]) -> float:
    with bed.nats() as server:
        async with bed.instance(server.url, NO_EXECUTOR) as it:
            took_s = await work_through(it.core, plans, WORKERS)
    return sum(len(plan.tasks) for _, plan in plans) / took_s


async def measure(scale: float) -> AsyncGenerator[Result]:
    """5,000 tasks in one plan, and in 50."""
    size = max(int(5_000 * scale), 200)
    small = await _rate([(f"p{n}", fan(size // 50)) for n in range(50)])
    large = await _rate([("wide", fan(size))])
    yield Result(
        measure=f"one plan of {size:,} against 50 of {size // 50}",
        value=large / small,
        unit="ratio",
        at_least=0.8,
        seen={"one_per_s": large, "many_per_s": small},
    )
