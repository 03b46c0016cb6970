"""arq: one process submits and works, as many jobs at once as asked for."""

import asyncio
from typing import Any

import uvloop
from arq import create_pool, func  # pyright: ignore[reportMissingImports]
from arq.connections import RedisSettings  # pyright: ignore[reportMissingImports]
from arq.worker import Worker  # pyright: ignore[reportMissingImports]

from tests.bench.peers.load import TEXT, Recorded, asked, measure

POLL_S = 0.01  # its own 0.5 s would bound it: one look takes no more than five jobs for each place


async def echo(_: Any, text: str) -> str:
    return text


async def main() -> None:
    """Work until everything that was submitted has its result."""
    wanted, recorded = asked(), Recorded()

    async def note(_: Any) -> None:
        recorded.note()

    pool = await create_pool(RedisSettings(unix_socket_path=wanted.where))
    worker = Worker(
        [func(echo, name="echo")],
        redis_pool=pool,
        max_jobs=wanted.workers,
        poll_delay=POLL_S,
        after_job_end=note,
        handle_signals=False,
        log_results=False,
    )
    working = asyncio.create_task(worker.async_run())
    await measure(wanted.tasks, lambda: pool.enqueue_job("echo", TEXT), recorded.reach)
    working.cancel()
    await asyncio.wait([working])
    await worker.close()


uvloop.run(main())
