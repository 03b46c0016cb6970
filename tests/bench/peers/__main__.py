"""`make bench-peers`: other task queues beside Holdfast in one run, with the same life cycle.

A task is submitted, an echo of 120 bytes runs, and its result is recorded. What each queue writes,
and when that is on disk, differs; the table says it for each.
"""

import argparse
import asyncio
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from statistics import median

import msgspec
import uvloop

from service.runtime.tuning import collect_seldom, switch_often
from tests.bench import runner
from tests.bench.child import answer_of
from tests.bench.cycles import TASKS_PER_PLAN, life_cycles
from tests.bench.executor import echo
from tests.bench.peers import environments, servers
from tests.bench.report import Result, progress, spread
from tests.bench.worker_kit import noop

WORKERS = (64, 256)
TASKS = 4_000
ROUNDS = 3  # interleaved
RUN_S = 120.0
ALL_S = 3_600.0

EACH_SECOND = "appendfsync everysec: the last second may be lost"
ALWAYS = "appendfsync always"
SYNCED = "synced before each acknowledgement"


class Peer(msgspec.Struct, frozen=True):
    """A queue in one configuration: its module and environment, its server, what it keeps."""

    name: str
    module: str
    server: Callable[[], AbstractContextManager[str]]
    durable: str
    extra: str = ""

    async def __call__(self, tasks: int, workers: int) -> float:
        """Tasks per second of one run on a new server."""
        python = await asyncio.to_thread(environments.python_of, self.module)
        with self.server() as where:
            seen = await answer_of(
                f"tests.bench.peers.on_{self.module}", where, tasks, workers, self.extra,
                python=python, environment={"PYTHONPATH": str(environments.ROOT)}, within_s=RUN_S,
            )  # fmt: skip
        return seen["tasks_per_s"]


class Own(msgspec.Struct, frozen=True):
    """Holdfast in one configuration."""

    name: str
    run: Callable[[int, int], Awaitable[float]]
    durable: str = SYNCED

    async def __call__(self, tasks: int, workers: int) -> float:
        """Tasks per second of one run on a new log."""
        return await self.run(tasks, workers)


async def _in_process(tasks: int, workers: int) -> float:
    return (await life_cycles(tasks, workers, start_in_claim=True)).tasks_per_s


async def _executor(tasks: int, workers: int) -> float:
    return (await echo(tasks, workers)).tasks_per_s


async def _worker_kit(tasks: int, workers: int) -> float:
    return (await noop(tasks, workers))["tasks_per_s"]


def _on_redis(name: str, module: str) -> list[Peer]:
    return [
        Peer(f"{name}, {fsync}", module, partial(servers.redis, fsync), durable)
        for fsync, durable in (("everysec", EACH_SECOND), ("always", ALWAYS))
    ]


IN_STORE = f"messages and results {SYNCED}"
SENT_ALONE = "messages synced; no result is kept"
STATUS = "synchronous_commit on; the status is kept, not what was returned"
WAYS: tuple[Own | Peer, ...] = (
    Own("Holdfast, workers in process", _in_process),
    Own("Holdfast, executor", _executor),
    Own("Holdfast, worker kit over HTTP", _worker_kit),
    *_on_redis("SAQ", "saq"),
    *_on_redis("arq", "arq"),
    *_on_redis("Celery, threads", "celery"),
    Peer("taskiq-nats, results in its store", "taskiq_nats", servers.nats, IN_STORE),
    Peer("taskiq-nats, no results", "taskiq_nats", servers.nats, SENT_ALONE, "no result"),
    Peer("procrastinate", "procrastinate", servers.postgresql, STATUS),
)


async def measure(
    scale: float, ways: tuple[Own | Peer, ...], workers: int
) -> AsyncGenerator[Result]:
    """Every way in turn, `ROUNDS` times; the first is what the others are compared with."""
    tasks = max(int(TASKS * scale) // TASKS_PER_PLAN, 1) * TASKS_PER_PLAN
    rates: dict[str, list[float]] = defaultdict(list)
    missing: set[str] = set()
    failed: list[str] = []
    for number in range(1, ROUNDS + 1):
        for way in ways:
            if way.name in missing:
                continue
            progress(f"{way.name}, {workers} at once, round {number} of {ROUNDS}")
            try:
                rates[way.name].append(await way(tasks, workers))
            except servers.Missing as reason:
                missing.add(way.name)
                progress(f"skipped: {way.name}: {reason}")
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                missing.add(way.name)
                failed.append(f"{way.name}: {error!r}")
                progress(f"failed: {failed[-1]}")
    for way in ways:
        if way.name in missing:
            continue
        shares = [a / b for a, b in zip(rates[way.name], rates[ways[0].name], strict=True)]
        yield Result(
            measure=f"{way.name}, {workers} at once",
            value=median(rates[way.name]),
            unit="tasks/s",
            seen={
                **spread(rates[way.name]),
                "to_first": median(shares),
                "durable": way.durable,
            },
        )
    if failed:
        raise RuntimeError("; ".join(failed))


def main() -> None:
    """Run what was asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="how names of peers begin")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the loads (default 1)")
    arguments = parser.parse_args()
    ways = tuple(
        way
        for way in WAYS
        if not arguments.names or way.name.startswith(("Holdfast, w", *arguments.names))
    )
    measures = {
        f"{workers} at once": partial(measure, ways=ways, workers=workers) for workers in WORKERS
    }
    collect_seldom()  # as a served instance does
    switch_often()
    sys.exit(1 if uvloop.run(runner.run(measures, arguments.scale, ALL_S)) else 0)


if __name__ == "__main__":
    main()
