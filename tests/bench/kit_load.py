"""The worker kit under load, in a process of its own. Prints one JSON object.

python -m tests.bench.kit_load PORT noop TASKS SLOTS     no-op tasks, submitted meanwhile
python -m tests.bench.kit_load PORT idle LEASES SECONDS  leases held and renewed, nothing else;
                                                         prints when that begins and ends
python -m tests.bench.kit_load PORT start TASKS SLOTS    one task at a time, as it is submitted
"""

import asyncio
import json
import statistics
import sys
import threading
import time

from holdfast_worker import AsyncTask, Client, Event, Worker
from tests.waiting import until

LEASE_S = 15.0
TASKS_PER_PLAN = 100
END_S = 0.005  # how late the end of a run may be seen
IDLE_BEGINS, IDLE_ENDS = "idle begins", "idle ends"


async def submit(url: str, kind: str, tasks: int) -> float:
    """Submit plans of `TASKS_PER_PLAN` tasks each; answers when the first one went out."""
    plan = [
        {"id": f"t{n}", "kind": kind, "input": {"text": "x" * 120}} for n in range(TASKS_PER_PLAN)
    ]
    async with Client(url) as client:
        began = time.perf_counter()
        for number in range(tasks // TASKS_PER_PLAN):
            await client.submit({"id": f"p{number}", "tasks": plan})
    return began


def noop(url: str, tasks: int, slots: int) -> dict[str, float]:
    """How many tasks per second go through."""
    worker = Worker("bench", slots=slots, url=url)

    @worker.task("bench")
    async def echo(task: AsyncTask) -> object:  # pyright: ignore[reportUnusedFunction]
        return task.input

    with worker:
        cpu = time.process_time()
        began = asyncio.run(submit(url, "bench", tasks))
        # As in `load`, the clock stops at the last completed task, and not up to 0.1 s later.
        while worker.counters.completed < tasks:
            time.sleep(END_S)
        took_s = time.perf_counter() - began
    return {"tasks_per_s": tasks / took_s, "worker_cpu": (time.process_time() - cpu) / took_s}


def idle(url: str, leases: int, seconds: float) -> dict[str, float]:
    """What share of a core the renewals take."""
    over = threading.Event()
    worker = Worker("bench", slots=leases, url=url)

    @worker.task("idle", lease_s=LEASE_S)
    async def wait(_: AsyncTask) -> None:  # pyright: ignore[reportUnusedFunction]
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        loops.append((loop, stopped))
        await stopped.wait()

    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    with worker:
        asyncio.run(submit(url, "idle", leases))
        until(lambda: len(loops) >= leases, 120, "every lease is held")
        over.wait(LEASE_S / 3)  # the first renewals come all at once
        print(IDLE_BEGINS, flush=True)
        cpu = time.process_time()
        over.wait(seconds)
        used = (time.process_time() - cpu) / seconds
        print(IDLE_ENDS, flush=True)
        for loop, stopped in loops:
            loop.call_soon_threadsafe(stopped.set)
        lost = worker.counters.lost
    return {"worker_cpu": used, "lost": lost}


def start(url: str, tasks: int, slots: int) -> dict[str, float]:
    """How long after its claim, by the log's clock, a handler has its first line run."""
    worker = Worker("bench", slots=slots, url=url)
    began: dict[str, float] = {}

    @worker.task("start")
    async def note(task: AsyncTask) -> None:  # pyright: ignore[reportUnusedFunction]
        began[task.plan_id] = time.time()

    async def run() -> list[float]:
        waited: list[float] = []
        async with Client(url) as client:
            for _ in range(tasks):
                plan = {"tasks": [{"id": "t", "kind": "start"}]}
                plan_id = (await client.submit(plan)).plan_id
                events = [each async for each in client.events(plan_id, types=["task.claimed"])]
                (claimed,) = (each for each in events if isinstance(each, Event))
                waited.append(began[plan_id] - claimed.at.timestamp())
        return waited

    with worker:
        waited = asyncio.run(run())
    return {"p50_s": statistics.median(waited), "p99_s": sorted(waited)[int(len(waited) * 0.99)]}


if __name__ == "__main__":
    port, mode, first, second = sys.argv[1:5]
    run = {"noop": noop, "idle": idle, "start": start}[mode]
    print(json.dumps(run(f"http://127.0.0.1:{port}", int(first), int(second))))
