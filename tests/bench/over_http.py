"""Life cycles over real HTTP, by a load generator in a process of its own."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator

from tests.bench import bed
from tests.bench.cycles import NO_EXECUTOR
from tests.bench.report import Result


async def raw_load(port: str, mode: str, tasks: int, connections: int) -> dict[str, float]:
    """What the load generator saw, in its own process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.load", port, mode, str(tasks), str(connections),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load generator ended with {process.returncode}")
    return json.loads(out)


async def measure(scale: float) -> AsyncGenerator[Result]:
    """Single calls, and claims and results of 50."""
    for mode, tasks, connections, aim in (
        ("single", 6_000, 64, 1_200),
        ("batch", 15_000, 8, 3_000),
    ):
        with bed.nats() as server:
            async with bed.instance(server.url, NO_EXECUTOR) as it:
                port = it.http_url.rsplit(":", 1)[1]
                seen = await raw_load(port, mode, int(tasks * scale), connections)
        yield Result(
            measure=f"life cycles over HTTP, {mode} calls",
            value=seen.pop("tasks_per_s"),
            unit="tasks/s",
            at_least=aim,
            seen=seen,
        )
