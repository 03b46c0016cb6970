"""Celery: this process submits, a worker of its own runs as many threads as asked for."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import redis  # pyright: ignore[reportMissingImports]
from celery import Celery  # pyright: ignore[reportMissingImports]

from service.runtime.child_process import dying_with_parent
from tests.bench.peers.load import TEXT, asked, measure

WHERE = "HOLDFAST_BENCH_CELERY"  # in the environment of the worker
POLL_S = 0.02
STOP_S = 30.0

app: Any = Celery("bench", broker=os.environ.get(WHERE), backend=os.environ.get(WHERE))
app.conf.update(task_acks_late=True)  # a task whose worker dies is run again, as with the others


def echo(text: str) -> str:
    return text


task: Any = app.task(echo, name="echo")


async def main() -> None:
    """Submit everything, and wait until it has its results."""
    wanted = asked()
    where = f"redis+socket://{wanted.where}"
    app.conf.update(broker_url=where, result_backend=where)
    results: Any = redis.Redis(unix_socket_path=wanted.where)

    async def submit() -> None:
        task.delay(TEXT)
        await asyncio.sleep(0)

    async def reach(count: int) -> None:
        while len(results.keys("celery-task-meta-*")) < count:
            await asyncio.sleep(POLL_S)

    command = [
        "-m", "celery", "-A", "tests.bench.peers.on_celery", "--quiet", "worker",
        "--pool", "threads", "--concurrency", str(wanted.workers), "--loglevel", "ERROR",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip
    quietly = {WHERE: where, "PYTHONWARNINGS": "ignore"}  # it warns of root, which CI is
    worker = await asyncio.create_subprocess_exec(
        *dying_with_parent(sys.executable, *command),
        env=os.environ | quietly,
        stdout=subprocess.DEVNULL,
    )
    try:
        await measure(wanted.tasks, submit, reach)
    finally:
        worker.terminate()
        async with asyncio.timeout(STOP_S):
            await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
