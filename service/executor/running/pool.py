"""The worker pool's places: a bounded number of running tasks, and a bounded queue before them.

A pool belongs to one event loop and counts; what runs in its places is `running.calls`' matter.
"""

import asyncio
from typing import Any

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
        self._places = asyncio.Semaphore(size)
        self._room = asyncio.Event()
        self._room.set()
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

    # -- for Place --------------------------------------------------------------------------

    def has_thread(self) -> bool:
        """Whether a thread is free now."""
        return not self._places.locked()

    async def acquire(self) -> None:
        """Wait for a thread."""
        await self._places.acquire()
        self._queued -= 1
        self._running += 1

    def release(self, *, held_thread: bool) -> None:
        """Give a slot back, and its thread if it had one."""
        if held_thread:
            self._running -= 1
            self._places.release()
        else:
            self._queued -= 1
        self.give_back(1)

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
        self._held_thread = False
        self._work: asyncio.Future[Any] | None = None
        self._left = False

    def has_thread(self) -> bool:
        """Whether `thread` would not have to wait."""
        return self._pool.has_thread()

    async def thread(self) -> None:
        """Wait for a thread."""
        await self._pool.acquire()
        self._held_thread = True

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
        self._pool.release(held_thread=self._held_thread)

    def close(self) -> None:
        """The attempt is over, its result written or given up."""
        self.leave()
        self._pool.forget()
