"""procrastinate: one process submits and works, as many jobs at once as asked for.

It keeps the status of a job, not what the job returned: that is the result that is waited for.
"""

import asyncio
import logging
from typing import Any

import procrastinate  # pyright: ignore[reportMissingImports]
import uvloop

from tests.bench.peers.load import TEXT, asked, measure

POLL_S = 0.02
CONNECTIONS = 32
COUNT = "SELECT count(*) AS done FROM procrastinate_jobs WHERE status = 'succeeded'"


async def main() -> None:
    """Work until everything that was submitted has succeeded."""
    wanted = asked()
    logging.getLogger("procrastinate").setLevel(logging.ERROR)  # it warns of apps in a main module
    connector: Any = procrastinate.PsycopgConnector(conninfo=wanted.where, max_size=CONNECTIONS)
    app: Any = procrastinate.App(connector=connector)

    async def echo(text: str) -> str:
        return text

    task = app.task(echo, name="echo")

    async def reach(count: int) -> None:
        while (await connector.execute_query_one_async(COUNT))["done"] < count:
            await asyncio.sleep(POLL_S)

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        working = asyncio.create_task(
            app.run_worker_async(concurrency=wanted.workers, install_signal_handlers=False)
        )
        await measure(wanted.tasks, lambda: task.defer_async(text=TEXT), reach)
        working.cancel()
        await asyncio.wait([working])


uvloop.run(main())
