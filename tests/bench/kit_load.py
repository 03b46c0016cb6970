"""The worker kit under load, in a process of its own. Prints one JSON object.

python -m tests.bench.kit_load PORT noop TASKS SLOTS     no-op tasks, submitted meanwhile
python -m tests.bench.kit_load PORT idle LEASES SECONDS  leases held and renewed, nothing else
"""

import asyncio
import json
import sys
import threading
import time

from holdfast_worker import AsyncTask, Client, Worker
from tests.waiting import until

LEASE_S = 15.0
TASKS_PER_PLAN = 100


async def submit(url: str, kind: str, tasks: int) -> None:
    """Plans of `TASKS_PER_PLAN` tasks each."""
    plan = [
        {"id": f"t{n}", "kind": kind, "input": {"text": "x" * 120}} for n in range(TASKS_PER_PLAN)
    ]
    async with Client(url) as client:
        for number in range(tasks // TASKS_PER_PLAN):
            await client.submit({"id": f"p{number}", "tasks": plan})


def noop(url: str, tasks: int, slots: int) -> dict[str, float]:
    """How many tasks per second go through."""
    worker = Worker("bench", slots=slots, url=url)

    @worker.task("bench")
    async def echo(task: AsyncTask) -> object:  # pyright: ignore[reportUnusedFunction]
        return task.input

    began, cpu = time.perf_counter(), time.process_time()
    with worker:
        asyncio.run(submit(url, "bench", tasks))
        until(lambda: worker.counters.completed >= tasks, 300, "every task is completed")
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
        cpu = time.process_time()
        over.wait(seconds)
        used = (time.process_time() - cpu) / seconds
        for loop, stopped in loops:
            loop.call_soon_threadsafe(stopped.set)
        lost = worker.counters.lost
    return {"worker_cpu": used, "lost": lost}


if __name__ == "__main__":
    port, mode, first, second = sys.argv[1:5]
    run = {"noop": noop, "idle": idle}[mode]
    print(json.dumps(run(f"http://127.0.0.1:{port}", int(first), int(second))))
