"""The one way into the core from another thread: ask on its loop, await the answer on one's own.

Questions and answers that are ready together cross in one wake-up, because waking a loop costs a
system call on either side.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from service.core.core import Core

T = TypeVar("T")


class BridgeClosed(Exception):
    """The core's loop has ended; nothing can be asked any more."""


class Bridge:
    """Takes callers from any thread's event loop to ``core``, which lives on ``loop``."""

    def __init__(self, core: Core, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._loop = loop
        self._inbox = Crossing(loop)
        self._homes: WeakKeyDictionary[asyncio.AbstractEventLoop, Crossing] = WeakKeyDictionary()
        self._lock = Lock()

    async def call(self, action: Callable[[Core], Awaitable[T]]) -> T:
        """Run ``action(core)`` on the core's loop and return or raise what it does.

        Never blocks the caller's loop. Cancelling the caller cancels the action. Raises
        `BridgeClosed` when the core's loop has ended.
        """
        here = asyncio.get_running_loop()
        if here is self._loop:
            return await action(self._core)
        visit = _Visit(action, self._core, here.create_future(), self._way_back(here))
        self._inbox.send(visit.enter)
        try:
            return await visit.answer
        except asyncio.CancelledError:
            with suppress(BridgeClosed):  # what ran there has ended with it
                self._inbox.send(visit.leave)
            raise

    def _way_back(self, home: asyncio.AbstractEventLoop) -> "Crossing":
        with self._lock:
            crossing = self._homes.get(home)
            if crossing is None:
                crossing = self._homes[home] = Crossing(home)
            return crossing


class Crossing:
    """Callables on their way to one loop; those sent before it wakes run in the same wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._lock = Lock()

    def send(self, work: Callable[[], None]) -> None:
        """Let ``work`` run on the loop soon, after everything sent before it. Any thread may."""
        with self._lock:
            self._waiting.append(work)
            if len(self._waiting) > 1:
                return  # a wake-up is on its way
        try:
            self._loop.call_soon_threadsafe(self._arrive)
        except RuntimeError as error:
            with self._lock:
                self._waiting.clear()
            raise BridgeClosed("the loop has ended") from error

    def _arrive(self) -> None:
        with self._lock:
            work = list(self._waiting)
            self._waiting.clear()
        for each in work:
            each()


class _Visit:
    """One question: started on the core's loop, answered on the caller's."""

    def __init__(
        self,
        action: Callable[[Core], Awaitable[Any]],
        core: Core,
        answer: asyncio.Future[Any],
        way_back: Crossing,
    ) -> None:
        self.answer = answer
        self._action = action
        self._core = core
        self._way_back = way_back
        self._task: asyncio.Task[Any] | None = None
        self._left = False
        # A wake-up is shared: without this, lines logged in there would bear a stranger's trace.
        self._context = copy_context()

    def enter(self) -> None:
        """On the core's loop: begin, unless the caller has already gone."""
        if self._left:
            return
        self._task = asyncio.get_running_loop().create_task(self._run(), context=self._context)
        self._task.add_done_callback(self._done)

    def leave(self) -> None:
        """On the core's loop: the caller no longer waits."""
        self._left = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> object:
        return await self._action(self._core)

    def _done(self, task: asyncio.Task[Any]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        result = None if error is not None else task.result()
        with suppress(BridgeClosed):  # the caller's loop has ended; nothing waits
            self._way_back.send(lambda: self._deliver(result, error))

    def _deliver(self, result: object, error: BaseException | None) -> None:
        if self.answer.done():
            return
        if isinstance(error, asyncio.CancelledError):
            self.answer.cancel()
        elif error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(result)
