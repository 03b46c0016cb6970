"""Handlers that still run although their attempt is over: they ignored that they had to stop.

A thread cannot be ended from outside, so such a handler keeps its slot until it returns. Here is
which handlers these are, for operators and for the claim queue: while one runs, the next attempt of
its task is left to other instances.
"""

from collections.abc import Iterator
from threading import Lock
from time import monotonic

import msgspec
from msgspec.structs import replace

from holdfast_worker.handler import AnyHandler
from service.executor.attempts.leases import Lease


class OverrunningHandler(msgspec.Struct, frozen=True, kw_only=True):
    """A handler that runs on although its attempt is over, and for how long it has done so."""

    handler: str
    kind: str
    plan_id: str
    task_id: str
    attempt: int
    reason: str
    for_s: float = 0.0


class Overruns:
    """Those of one executor; holds (plan, task) pairs. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: dict[tuple[str, str, int], tuple[float, OverrunningHandler]] = {}
        self._tasks: dict[tuple[str, str], int] = {}

    def add(self, lease: Lease, handler: AnyHandler) -> None:
        """The attempt of ``lease`` is over, and ``handler`` runs on."""
        plan_id, task_id, attempt = lease.key
        overrun = OverrunningHandler(
            handler=handler.name,
            kind=handler.kind,
            plan_id=plan_id,
            task_id=task_id,
            attempt=attempt,
            reason=lease.cancellation.reason or "",
        )
        with self._lock:
            self._running[lease.key] = monotonic(), overrun
            self._tasks[plan_id, task_id] = self._tasks.get((plan_id, task_id), 0) + 1

    def remove(self, lease: Lease) -> None:
        """The handler has returned at last."""
        with self._lock:
            if self._running.pop(lease.key, None) is not None:
                task = lease.key[:2]
                self._tasks[task] -= 1
                if not self._tasks[task]:
                    del self._tasks[task]

    def all(self) -> tuple[OverrunningHandler, ...]:
        """Every one, the oldest first."""
        now = monotonic()
        with self._lock:
            return tuple(replace(each, for_s=now - at) for at, each in self._running.values())

    def __contains__(self, task: object) -> bool:
        """Whether a handler of the task, a (plan, task) pair, runs on here."""
        return task in self._tasks

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """The tasks that have one."""
        with self._lock:
            return iter(list(self._tasks))

    def __len__(self) -> int:
        """How many tasks have one."""
        return len(self._tasks)
