"""Runs handlers: plain functions on threads, async ones on one loop, never on the worker's own."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from traceback import format_exception
from typing import Any

from holdfast_worker.failures import TaskFailed, describe, text_of
from holdfast_worker.lease import Lease
from holdfast_worker.logs import Notices, bind, bound
from holdfast_worker.outcome import Completed, Failed, raised, returned
from holdfast_worker.task import Keep

TRACE_FRAMES = 10
TRACE_CHARACTERS = 4_000

Over = tuple[Lease, Completed | Failed]
Ended = Callable[[Sequence[Over]], None]
"""Takes what became of attempts, on whatever thread their handlers ran."""


class Runner:
    """Starts attempts; never raises what a handler raises, not even SystemExit."""

    def __init__(self, ended: Ended, keep_for: Callable[[Lease], Keep], notices: Notices) -> None:
        self._ended = ended
        self._keep_for = keep_for
        self._notices = notices
        self._threads = HandlerThreads()
        self._loop = HandlerLoop(notices)
        self._over: list[Over] = []  # async handlers that ended in this turn of their loop

    def start(self, leases: Sequence[Lease]) -> None:
        """Run the handlers of ``leases``, all of them at the same time."""
        for lease in leases:
            lease.begun = True
        on_loop = [lease for lease in leases if lease.handler.is_async]
        if on_loop:
            self._loop.call(lambda: self._spawn(on_loop))
        for lease in leases:
            if not lease.handler.is_async:
                self._threads.submit(lambda lease=lease: self._run(lease))

    def close(self) -> None:
        """End the loop and the idle threads; handlers that still run are left to the process."""
        self._threads.close()
        self._loop.close()

    def _run(self, lease: Lease) -> None:
        """On a thread."""
        failed_by: BaseException | None = None
        with bound(*lease.key):
            try:
                task = lease.run_with(self._keep_for(lease))
                outcome = returned(lease.handler.invoke(task, lease.claim.input), task)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it ends this attempt only
                failed_by, outcome = error, _failed(error, lease)
        self._log_failure(lease, outcome, failed_by)
        self._ended([(lease, outcome)])

    def _spawn(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            lease.cancellation.on_cancel(self._loop.spawn(self._run_async(lease)))

    async def _run_async(self, lease: Lease) -> None:
        """On the handlers' loop."""
        failed_by: BaseException | None = None
        bind(*lease.key)
        try:
            task = lease.run_with(self._keep_for(lease))
            outcome = returned(await lease.handler.invoke(task, lease.claim.input), task)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends this attempt only
            failed_by, outcome = error, _failed(error, lease)
        self._log_failure(lease, outcome, failed_by)
        if not self._over:
            asyncio.get_running_loop().call_soon(self._tell_over)
        self._over.append((lease, outcome))

    def _log_failure(
        self, lease: Lease, outcome: Completed | Failed, error: BaseException | None
    ) -> None:
        """Log why an attempt failed, unless it was stopped; an unexpected error with traceback."""
        if isinstance(outcome, Failed) and not lease.cancellation.is_set():
            said = outcome.error_message
            if error is not None and not isinstance(error, TaskFailed):
                said = _traceback(error)
            self._notices.warn("%s/%s#%d: %s: %s", *lease.key, outcome.error_type, said)

    def _tell_over(self) -> None:
        """Tell of all that ended in one turn of the loop: waking the other loop costs a switch."""
        over, self._over = self._over, []
        self._ended(over)


def _failed(error: BaseException, lease: Lease) -> Failed:
    return raised(error, lease.run.spent if lease.run is not None else None)


def _traceback(error: BaseException) -> str:
    """Its last frames and what it says, bounded: user code may raise anything."""
    try:
        lines = "".join(format_exception(error, limit=-TRACE_FRAMES))
    except Exception:  # noqa: BLE001 - properties and __str__ of user code
        return describe(error)
    return text_of(lines[-TRACE_CHARACTERS:], TRACE_CHARACTERS)


class HandlerLoop:
    """The event loop of async handlers, on a thread of its own; begins when first needed."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._loop = asyncio.new_event_loop()
        self._running = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the loop, from any thread."""
        if not self._running:
            self._running = True
            Thread(target=self._run, name="holdfast-handlers", daemon=True).start()
        with suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(function)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> Callable[[], None]:
        """Run ``coroutine`` beside the others, on the loop only; answers what cancels it.

        That may be called from any thread.
        """
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return lambda: self.call(task.cancel)

    def close(self) -> None:
        """End the loop once its handlers have ended."""
        self._closing = True
        if self._running:
            self.call(self._loop.stop)
        else:
            self._loop.close()

    def _run(self) -> None:
        """A handler's own task that raises SystemExit ends `run_forever`, and nothing else."""
        asyncio.set_event_loop(self._loop)
        while not self._closing:
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - SystemExit of user code
                self._notices.warn("a task of a handler raised %r on the loop", error)
        self._loop.close()


class HandlerThreads:
    """Threads that are started when no idle one is there; they never keep the process alive."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = Lock()
        self._idle = 0
        self._count = 0

    def submit(self, job: Callable[[], None]) -> None:
        """Run ``job`` on a thread of its own; as many run at once as are submitted."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            else:
                self._count += 1
                name = f"holdfast-handler-{self._count}"
                Thread(target=self._work, name=name, daemon=True).start()
        self._jobs.put(job)

    def close(self) -> None:
        """End the idle threads, and the others after their jobs."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            with self._lock:
                self._idle += 1
