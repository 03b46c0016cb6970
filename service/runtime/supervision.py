"""Watches the vital loops and threads of an instance: the first one that ends, ends the process.

Vital loops run on the API loop (`guard`), as tasks of other threads' loops (`Supervision.watch`),
and as threads (`Supervision.watch_thread`). None of them may end before the instance stops.
"""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from threading import Thread
from typing import Any

CANCEL_AGAIN_S = 1.0
LOOK_S = 0.5  # how often it is checked that threads are alive


class Supervision:
    """Resolves ``died`` with the name of the first vital loop that ended, and why.

    It belongs to the loop on which it is made; loops and threads may be reported from any thread.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.died: asyncio.Future[str] = self._loop.create_future()
        self._threads: dict[str, Thread] = {}
        self._closed = False

    def watch(
        self, name: str, loop: "asyncio.Task[Any] | Future[Any]", *, may_be_cancelled: bool = False
    ) -> None:
        """Report ``loop`` when it ends."""

        def ended(loop: "asyncio.Future[Any] | Future[Any]") -> None:
            if not loop.cancelled():
                self.ended(name, loop.exception())
            elif not may_be_cancelled:
                self.ended(name, asyncio.CancelledError())

        loop.add_done_callback(ended)

    def watch_thread(self, thread: Thread) -> None:
        """Report ``thread`` when it ends. It has been started."""
        self._threads[thread.name] = thread

    def forget_thread(self, thread: Thread) -> None:
        """Let ``thread`` end: its work goes on elsewhere."""
        self._threads.pop(thread.name, None)

    def ended(self, name: str, error: BaseException | None) -> None:
        """Say that the loop ``name`` has ended, with ``error`` if it raised one."""
        if not self._closed:
            with suppress(RuntimeError):  # the API loop has ended, and the process with it
                self._loop.call_soon_threadsafe(_resolve, self.died, name, error)

    async def look_forever(self) -> None:
        """Look whether the threads are alive."""
        while True:
            for name, thread in list(self._threads.items()):
                if not thread.is_alive() and self._threads.get(name) is thread:
                    self.ended(name, None)
            await asyncio.sleep(LOOK_S)

    def close(self) -> None:
        """The instance stops: from now on loops and threads may end."""
        self._closed = True


def _resolve(died: asyncio.Future[str], name: str, error: BaseException | None) -> None:
    if not died.done():
        died.set_result(f"the loop '{name}' has ended: {error!r}")


def guard(
    stack: AsyncExitStack, died: asyncio.Future[str], **loops: Coroutine[Any, Any, None]
) -> None:
    """Run ``loops`` by their names until ``stack`` is left; the first that ends resolves ``died``.

    They run on the running loop.
    """
    for name, loop in loops.items():
        task = asyncio.create_task(loop, name=name)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                _resolve(died, task.get_name(), task.exception())

        task.add_done_callback(ended)
        stack.push_async_callback(_cancelled, task)


async def _cancelled(task: asyncio.Task[None]) -> None:
    # Before Python 3.12 `asyncio.wait_for` can lose a cancellation, so one may not be enough.
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
