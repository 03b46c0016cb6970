"""The worker pool: a bounded number of threads for user code, and a bounded queue before them.

A pool belongs to one event loop; only the threads' work runs elsewhere. The threads are daemons
of our own making, because `concurrent.futures` waits for its threads when the process exits, and a
handler that ignores its cancellation must not keep a drained process alive.
"""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from service.core.bridge import BridgeClosed, Crossing
from service.executor.running.gate import Gate

T = TypeVar("T")

UNREPORTED = 256  # how many ended attempts may wait for their result to be written


class WorkerPool:
    """``size`` threads and ``queue_capacity`` waiting places; never more work than both."""

    def __init__(self, name: str, size: int, queue_capacity: int, gate: Gate) -> None:
        self._name = name
        self._gate = gate
        self._size = size
        self.capacity = size + queue_capacity
        self._taken = 0
        self._attempts = 0
        self._running = 0
        self._queued = 0
        self._threads: list[Thread] = []
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._places = asyncio.Semaphore(size)
        self._way_back = Crossing(asyncio.get_running_loop())
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

    def dismiss(self) -> None:
        """Let the threads go; each ends when its handler does."""
        for _ in self._threads:
            self._work.put(None)

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

    def has_turn(self) -> bool:
        """Whether a handler may run now."""
        return self._gate.has_room

    async def enter(self) -> None:
        """Wait until a handler may run; see `gate`."""
        await self._gate.enter()

    def release(self, *, held_thread: bool, held_turn: bool) -> None:
        """Give a slot back, and its thread and turn if it had them."""
        if held_turn:
            self._gate.leave()
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

    def start(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Run ``work`` on a thread that was acquired."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if len(self._threads) < min(self._running, self._size):
            self._add_thread()
        self._work.put(_Job(work, future, self._way_back))
        return future

    def _add_thread(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = Thread(target=_serve, args=(self._work,), name=name, daemon=True)
        thread.start()  # raises where the system has no more threads
        self._threads.append(thread)


class PoolPlace:
    """One task's place in the pool: a slot, then a thread, then a turn; all given back together.

    The slot comes back when the handler has ended, not when its caller stopped waiting.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._held_thread = False
        self._held_turn = False
        self._work: asyncio.Future[object] | None = None
        self._left = False

    def has_thread(self) -> bool:
        """Whether `thread` would not have to wait."""
        return self._pool.has_thread()

    async def thread(self) -> None:
        """Wait for a thread."""
        await self._pool.acquire()
        self._held_thread = True

    def has_turn(self) -> bool:
        """Whether `turn` would not have to wait."""
        return self._pool.has_turn()

    async def turn(self) -> None:
        """Wait until the handler may run; after its start is written, which waits for a disk."""
        await self._pool.enter()
        self._held_turn = True

    def run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Run ``work`` on the thread that `thread` has waited for."""
        future = self._pool.start(work)
        self._work = future  # pyright: ignore[reportAttributeAccessIssue] - only waited for
        return future

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
        self._pool.release(held_thread=self._held_thread, held_turn=self._held_turn)

    def close(self) -> None:
        """The attempt is over, its result written or given up."""
        self.leave()
        self._pool.forget()


class _Job(Generic[T]):
    """Work for a thread, with the way its result takes back to the loop."""

    def __init__(
        self, work: Callable[[], T], future: "asyncio.Future[T]", way_back: Crossing
    ) -> None:
        self._work = work
        self._future = future
        self._way_back = way_back

    def __call__(self) -> None:
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001 - user code may raise anything
            self._answer(lambda error=error: self._future.set_exception(error))
        else:
            self._answer(lambda: self._future.set_result(result))

    def _answer(self, settle: Callable[[], None]) -> None:
        try:
            self._way_back.send(lambda: None if self._future.done() else settle())
        except BridgeClosed:
            return  # the executor has ended; nothing waits


def _serve(work: "SimpleQueue[Callable[[], None] | None]") -> None:
    while (job := work.get()) is not None:
        job()
