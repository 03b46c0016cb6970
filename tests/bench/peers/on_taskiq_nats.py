"""taskiq-nats: one process submits to a stream and works; results go to an object store, or not.

With `no result` as the last argument nothing is recorded but the acknowledgement of the message.
"""

import asyncio
from typing import Any

import uvloop
from taskiq import TaskiqMiddleware  # pyright: ignore[reportMissingImports]
from taskiq.receiver import Receiver  # pyright: ignore[reportMissingImports]
from taskiq_nats import (  # pyright: ignore[reportMissingImports]
    NATSObjectStoreResultBackend,
    PullBasedJetStreamBroker,
)

from tests.bench.peers.load import TEXT, Recorded, asked, measure

Middleware: Any = TaskiqMiddleware


class Noting(Middleware):
    """Counts what was saved."""

    def __init__(self, recorded: Recorded) -> None:
        super().__init__()
        self._recorded = recorded

    def post_save(self, *_: Any) -> None:
        self._recorded.note()


async def main() -> None:
    """Work until everything that was submitted has its result."""
    wanted, recorded = asked(), Recorded()
    broker: Any = PullBasedJetStreamBroker(
        [wanted.where], pull_consume_batch=wanted.workers, pull_consume_timeout=0.5
    )
    if wanted.extra != "no result":
        broker = broker.with_result_backend(NATSObjectStoreResultBackend([wanted.where]))
    broker.add_middlewares(Noting(recorded))

    async def echo(text: str) -> str:
        return text

    task = broker.register_task(echo, task_name="echo")

    await broker.startup()
    receiver: Any = Receiver(
        broker, max_async_tasks=wanted.workers, max_prefetch=wanted.workers, run_startup=False
    )
    over = asyncio.Event()
    working = asyncio.create_task(receiver.listen(over))
    await measure(wanted.tasks, lambda: task.kiq(TEXT), recorded.reach)
    over.set()
    await asyncio.wait([working], timeout=5)
    await broker.shutdown()


uvloop.run(main())
