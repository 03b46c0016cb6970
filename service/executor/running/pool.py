"""The worker pool's places: a bounded number of running tasks, and a bounded queue before them.

A pool belongs to one event loop and counts; what runs in its places is `running.calls`' matter.
"""

import asyncio
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Any

from service.executor.running.gathering import Gathering

UNREPORTED = 256  # how many ended attempts may wait for their result to be written


class WorkerPool:
    """Places for ``size`` running tasks and ``queue_capacity`` waiting ones, never for more."""

    def __init__(self, size: int, queue_capacity: int) -> None:
        self._size = size
        self.capacity = size + queue_capacity
        self._taken = 0
        self._attempts = 0
        self._running = 0
        self._queued = 0
        self._turns: deque[asyncio.Future[None]] = deque()  # of tasks that wait for a thread
        self._room = asyncio.Event()
        self._room.set()
        self._gathering = Gathering()
        self.closed = False

    @property
    def running(self) -> int:
        """Tasks that hold a thread, including those whose handler ignores its cancellation."""
        return self._running

    @property
    def queued(self) -> int:
        """Tasks that wait for a thread."""
        return self._queued

    @property
    def free(self) -> int:
        """How many more tasks may be claimed now."""
        unreported = self.capacity + UNREPORTED - self._attempts
        return 0 if self.closed else max(min(self.capacity - self._taken, unreported), 0)

    @property
    def idle(self) -> int:
        """How many threads neither run a task nor are awaited by one."""
        return max(self._size - self._running - self._queued, 0)

    async def room(self) -> None:
        """Wait until a task may be claimed, or the pool is closed."""
        while not self.free and not self.closed:
            self._room.clear()
            await self._room.wait()

    def came(self, tasks: int, hold_s: float) -> None:
        """A claim brought ``tasks``, all admitted; `gathered` waits ``hold_s`` for them at most."""
        others = self._running + self._queued - tasks
        self._gathering.came(tasks, others, self.free, hold_s)

    async def gathered(self) -> None:
        """Wait a moment if the tasks of the last claim end together, or until it is closed."""
        while not self.closed and (left_s := self._left_s()) > 0:
            self._room.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._room.wait()

    def _left_s(self) -> float:
        return self._gathering.left_s(self._running + self._queued)

    def reserve(self, most: int) -> int:
        """Set slots aside for a claim; answers how many, at most ``most``."""
        count = min(self.free, most)
        self._taken += count
        return count

    def give_back(self, count: int) -> None:
        """Return reserved slots that no task came for."""
        self._taken -= count
        self._room.set()

    def admit(self) -> "PoolPlace":
        """Turn one reserved slot into a place for a task."""
        self._attempts += 1
        self._queued += 1
        return PoolPlace(self)

    def close(self) -> None:
        """Take no more tasks; those that were admitted may still run."""
        self.closed = True
        self._room.set()

    @property
    def overdrawn(self) -> bool:
        """Whether more tasks came than slots were reserved."""
        return self._taken > self.capacity

    # -- for PoolPlace ----------------------------------------------------------------------

    def take_thread(self) -> bool:
        """Take a thread if one is free."""
        if self._running >= self._size:
            return False
        self._queued -= 1
        self._running += 1
        return True

    async def thread(self) -> None:
        """Take a thread in one's turn."""
        if self.take_thread():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # it was passed over already
                    self._turns.remove(turn)
            else:  # its turn came in the very moment in which it stopped waiting
                self._running -= 1
                self._queued += 1
                self._pass_on()
            raise

    def release(self, held_s: float | None) -> None:
        """Give a slot back, and its thread if it was ``held_s`` seconds with one."""
        if held_s is None:
            self._queued -= 1
        else:
            self._gathering.ended(held_s)
            self._running -= 1
            self._pass_on()
        self.give_back(1)

    def _pass_on(self) -> None:
        """Give a free thread to the first that waits for one."""
        while self._turns and self._running < self._size:
            turn = self._turns.popleft()
            if not turn.done():
                self.take_thread()
                turn.set_result(None)

    def forget(self) -> None:
        """An attempt is over in every respect."""
        self._attempts -= 1
        self._room.set()


class PoolPlace:
    """One task's place in the pool: a slot, then a thread; both given back together.

    The slot comes back when the handler has ended, not when its caller stopped waiting.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._thread_since: float | None = None  # monotonic
        self._work: asyncio.Future[Any] | None = None
        self._left = False

    def take_thread(self) -> bool:
        """Have a thread at once, if one is free."""
        taken = self._pool.take_thread()
        if taken:
            self._thread_since = monotonic()
        return taken

    async def thread(self) -> None:
        """Wait for a thread."""
        await self._pool.thread()
        self._thread_since = monotonic()

    def hold(self, work: "asyncio.Future[Any]") -> None:
        """The place is taken until ``work``, the handler's, has ended."""
        self._work = work

    def leave(self) -> None:
        """Give slot and thread back as soon as the handler has ended; may be called twice."""
        if self._left:
            return
        self._left = True
        if self._work is None or self._work.done():
            self._release()
        else:
            self._work.add_done_callback(lambda _: self._release())

    def _release(self) -> None:
        since = self._thread_since
        self._pool.release(None if since is None else monotonic() - since)

    def close(self) -> None:
        """The attempt is over, its result written or given up."""
        self.leave()
        self._pool.forget()
