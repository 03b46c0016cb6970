"""A thread with an event loop of its own: the unit of isolation."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

JOIN_S = 5.0


class LoopThread:
    """Runs coroutines on a daemon thread with an event loop of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = uvloop.new_event_loop()
        self._ended = False
        self.thread = Thread(target=self._run, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether its loop still runs."""
        return self.thread.is_alive() and not self._ended

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin ``coroutine`` on this loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    async def ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` on this loop and await its result on the caller's.

        Raises RuntimeError when the loop has ended.
        """
        try:
            asked = self.spawn(coroutine)
        except RuntimeError:
            coroutine.close()
            raise
        return await asyncio.wrap_future(asked)

    async def stop(self) -> None:
        """Cancel what runs, end the loop and its thread; waits at most `JOIN_S`."""
        if not self.thread.is_alive():
            return
        self.let_go()
        await asyncio.to_thread(self.thread.join, JOIN_S)

    def let_go(self) -> None:
        """Cancel what runs, end the loop and its thread, some time; waits for nothing."""
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self._ended = True
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
