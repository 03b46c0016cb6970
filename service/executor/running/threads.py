"""Runs handlers on threads of the serving process, or each in a process that a thread waits for.

The threads are daemons of our own making, because `concurrent.futures` waits for its threads at the
process's end, and a handler that ignores its cancellation must not keep a drained process alive.
"""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Generic, TypeVar

from service.core.bridge import BridgeClosed, Crossing
from service.executor.attempts.endings import Ending
from service.executor.attempts.execution import execute
from service.executor.hosts.status import HostStatus
from service.executor.running.calls import HandlerCall
from service.executor.running.processes import ProcessWorkers
from service.signals.tracing.spans import Recorder, recorder

T = TypeVar("T")


class ThreadRunner:
    """See `running.calls.HandlerRunner`; as many threads as calls run at once."""

    def __init__(self, name: str, processes: ProcessWorkers, spans: Recorder | None = None) -> None:
        self._name = name
        self._processes = processes
        self._spans = spans
        self._threads: list[Thread] = []
        self._busy = 0
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._way_back = Crossing(asyncio.get_running_loop())

    async def open(self) -> None:
        """Threads start when they are needed."""

    @property
    def is_ready(self) -> bool:
        """Always."""
        return True

    async def ready(self) -> None:
        """Threads start at once."""

    def run(self, call: HandlerCall) -> "asyncio.Future[Ending]":
        """Begin ``call`` on a thread; raises RuntimeError where the system has no more."""
        future: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        if len(self._threads) <= self._busy:
            self._add_thread()
        self._busy += 1
        future.add_done_callback(self._free)
        self._work.put(_ThreadJob(lambda: self._execute(call), future, self._way_back))
        return future

    async def close(self) -> None:
        """Let the threads end; each does when its handler has ended."""
        for _ in self._threads:
            self._work.put(None)

    def hosts(self) -> tuple[HostStatus, ...]:
        """None."""
        return ()

    def _execute(self, call: HandlerCall) -> Ending:
        """On a thread."""
        call.began(monotonic())
        recorder.set(self._spans)
        runs = self._processes.execute if call.handler.pool == "process" else execute
        return runs(call.handler, call.work, call.cancelled, call.show, call.keep)

    def _free(self, _: "asyncio.Future[Ending]") -> None:
        self._busy -= 1

    def _add_thread(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = Thread(target=_serve, args=(self._work,), name=name, daemon=True)
        thread.start()  # raises where the system has no more threads
        self._threads.append(thread)


class _ThreadJob(Generic[T]):
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
