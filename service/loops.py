"""A thread with an event loop of its own, whose lag is measured: the unit of isolation."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

import uvloop

from service.metrics import Metrics

T = TypeVar("T")

LAG_SAMPLE_S = 0.25
JOIN_S = 5.0


class Lag:
    """How late one loop runs what is due: sampled into ``agent.loop.lag``, the last kept here."""

    def __init__(self, label: str, metrics: Metrics) -> None:
        self.label = label
        self.last_s = 0.0
        self._metrics = metrics

    async def sample_forever(self) -> None:
        """Measure the loop that this runs on."""
        clock = asyncio.get_running_loop().time
        while True:
            expected = clock() + LAG_SAMPLE_S
            await asyncio.sleep(LAG_SAMPLE_S)
            self.last_s = max(clock() - expected, 0.0)
            self._metrics.observe("agent.loop.lag", self.last_s, loop=self.label)


class LoopThread:
    """Runs coroutines on a daemon thread; ``label`` names the loop in ``agent.loop.lag``."""

    def __init__(self, name: str, label: str, metrics: Metrics) -> None:
        self.name = name
        self.lag = Lag(label, metrics)
        self.loop = uvloop.new_event_loop()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread and its lag sampler."""
        self._thread.start()
        self.spawn(self.lag.sample_forever())

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin ``coroutine`` on this loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    async def ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` on this loop and await its result on the caller's."""
        return await asyncio.wrap_future(self.spawn(coroutine))

    async def stop(self) -> None:
        """Cancel what runs, end the loop and its thread; waits at most `JOIN_S`."""
        if not self._thread.is_alive():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        await asyncio.to_thread(self._thread.join, JOIN_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self._cancel_the_rest()
            self.loop.close()

    def _cancel_the_rest(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=1))
        for task in tasks:
            with suppress(asyncio.CancelledError, asyncio.InvalidStateError):
                task.exception()
