"""Three instances on one log against one: the same load over HTTP, spread over all of them.

Each instance folds every fact, its own and the others', so only what comes before the fold (HTTP,
deciding, appending) is shared out; and all of them share the machine's cores with nats-server.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from statistics import median

from tests.bench import bed, sse_bed
from tests.bench.child import answer_of
from tests.bench.report import Result, progress, spread

ROUNDS = 3  # interleaved
COUNTS = (1, 3)
WAYS = (("single calls, start in the claim", 4_000, 64), ("batch calls", 15_000, 12))


async def rate(instances: int, mode: str, tasks: int, connections: int) -> tuple[float, float]:
    """Tasks per second, and microseconds of CPU of all instances for each task."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(bed.nats())
        processes = [
            await stack.enter_async_context(sse_bed.service(server.url)) for _ in range(instances)
        ]
        costs = [sse_bed.Cost(each.pid) for each in processes]
        ports = ",".join(str(sse_bed.port_of(each)) for each in processes)
        seen = await answer_of("tests.bench.load", ports, mode, tasks, connections)
        return seen["tasks_per_s"], sum(each.cpu_s for each in costs) / tasks * 1e6


async def measure(scale: float) -> AsyncGenerator[Result]:
    """Single calls and batches."""
    for mode, full, connections in WAYS:
        tasks = max(int(full * scale), 1_000)
        runs: dict[int, list[tuple[float, float]]] = {count: [] for count in COUNTS}
        for n in range(ROUNDS):
            progress(f"{mode}, {COUNTS[0]} and {COUNTS[1]} instances, round {n + 1} of {ROUNDS}")
            for count, seen in runs.items():
                seen.append(await rate(count, mode, tasks, connections))
        one, three = runs.values()
        shares = [a / b for (a, _), (b, _) in zip(three, one, strict=True)]
        yield Result(
            measure=f"three instances on one log against one, {mode}",
            value=median(shares),
            unit="ratio",
            seen={
                **spread(shares),
                "three_per_s": median([each for each, _ in three]),
                "one_per_s": median([each for each, _ in one]),
                "three_cpu_us_per_task": median([each for _, each in three]),
                "one_cpu_us_per_task": median([each for _, each in one]),
            },
        )
