"""Life cycles over real HTTP, by a load generator in a process of its own."""

import time
from collections.abc import AsyncGenerator
from statistics import median

from tests.bench import bed
from tests.bench.child import answer_of
from tests.bench.cycles import NO_EXECUTOR
from tests.bench.report import Result, progress, spread

ROUNDS = 3  # interleaved


async def raw_load(port: str, mode: str, tasks: int, connections: int) -> dict[str, float]:
    """What the load generator saw, in its own process."""
    return await answer_of("tests.bench.load", port, mode, tasks, connections)


async def load(mode: str, tasks: int, connections: int) -> dict[str, float]:
    """One run against an instance of its own: what the generator saw, and the service's CPU."""
    with bed.nats() as server:
        async with bed.instance(server.url, NO_EXECUTOR) as it:
            cpu = time.process_time()
            seen = await raw_load(it.http_url.rsplit(":", 1)[1], mode, tasks, connections)
            cpu = time.process_time() - cpu
    return seen | {"service_cpu_us_per_task": cpu / tasks * 1e6}


async def measure(scale: float) -> AsyncGenerator[Result]:
    """Single calls, and claims and results of 50."""
    ways = (
        ("single calls", 4_000, 64, 1_200),
        ("single calls, start in the claim", 4_000, 64, 2_200),
        ("batch calls", 15_000, 8, 7_000),
    )
    runs: dict[str, list[dict[str, float]]] = {mode: [] for mode, *_ in ways}
    for n in range(ROUNDS):
        progress(f"life cycles over HTTP, round {n + 1} of {ROUNDS}")
        for mode, tasks, connections, _aim in ways:
            runs[mode].append(await load(mode, max(int(tasks * scale), 100), connections))
    for mode, _tasks, _connections, aim in ways:
        yield Result(
            measure=f"life cycles over HTTP, {mode}",
            value=median([each["tasks_per_s"] for each in runs[mode]]),
            unit="tasks/s",
            at_least=aim,
            seen={
                **spread([each["tasks_per_s"] for each in runs[mode]]),
                **{
                    name: median([each[name] for each in runs[mode]])
                    for name in (
                        "service_cpu_us_per_task",
                        "generator_cpu",
                        "generator_cpu_us_per_task",
                    )
                },
            },
        )
