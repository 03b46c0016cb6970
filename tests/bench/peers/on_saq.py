"""SAQ: one process submits and works, as many jobs at once as asked for."""

import asyncio
from typing import Any

import uvloop  # pyright: ignore[reportMissingImports]
from saq import Worker  # pyright: ignore[reportMissingImports]
from saq.queue.redis import RedisQueue  # pyright: ignore[reportMissingImports]

from tests.bench.peers.load import TEXT, Recorded, asked, measure


async def echo(_: Any, *, text: str) -> str:
    return text


async def main() -> None:
    """Work until everything that was submitted has its result."""
    wanted, recorded = asked(), Recorded()

    async def note(_: Any) -> None:
        recorded.note()

    url = f"unix://{wanted.where}"
    queue = RedisQueue.from_url(url, max_concurrent_ops=wanted.workers)
    await queue.connect()
    worker = Worker(queue, [echo], concurrency=wanted.workers, after_process=note)
    working = asyncio.create_task(worker.start())
    await measure(wanted.tasks, lambda: queue.enqueue("echo", text=TEXT), recorded.reach)
    working.cancel()
    await asyncio.wait([working])
    await queue.disconnect()


uvloop.run(main())
