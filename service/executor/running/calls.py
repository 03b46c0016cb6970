"""One call of a handler, and the port behind which it runs: threads here, or host processes."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from holdfast_worker.cancellation import Cancellation
from holdfast_worker.task import Assignment, Keep
from service.executor.attempts.endings import Ending
from service.executor.attempts.execution import Show
from service.executor.hosts.status import HostStatus


class HandlerCall(msgspec.Struct, frozen=True, kw_only=True):
    """What is to run. ``began`` gets the time of the handler's first instruction (monotonic).

    ``show`` and ``keep`` may be called from any thread.
    """

    handler: Any  # AnyHandler, which msgspec cannot describe
    work: Assignment
    cancelled: Cancellation
    show: Show
    keep: Keep
    began: Callable[[float], None]


class HandlerRunner(Protocol):
    """Runs calls; belongs to one event loop."""

    async def open(self) -> None:
        """Prepare to run calls."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether a call would begin at once; work is claimed only then."""
        ...

    async def ready(self) -> None:
        """Wait until a call would begin at once; returns within a second in any case."""
        ...

    def run(self, call: HandlerCall) -> "asyncio.Future[Ending]":
        """Begin ``call``; its future has a result as soon as its handler has ended.

        Raises RuntimeError where the system has no more threads.
        """
        ...

    async def close(self) -> None:
        """Run no more; what still runs is left to end, or ended, within a second or two."""
        ...

    def hosts(self) -> tuple[HostStatus, ...]:
        """Its processes that last longer than a call; any thread may ask."""
        ...
