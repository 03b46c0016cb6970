"""Runs one handler in the worker thread and turns whatever it does into a value."""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars

from service.executor.attempts.endings import Ending, conclude, failure_of
from service.executor.attempts.failures import TaskFailed
from service.executor.handlers.contract import Assignment, Cancellation, Handler, Shown, TaskRun
from streams.traceparent import trace_id_of

Show = Callable[[Shown], None]

log = structlog.get_logger("holdfast.executor")


def execute(handler: Handler, work: Assignment, cancelled: Cancellation, show: Show) -> Ending:
    """Run ``handler`` on this thread to its end; never raises.

    Lines logged meanwhile bear the attempt and its trace.
    """
    return copy_context().run(_execute, handler, work, cancelled, show)


def _execute(handler: Handler, work: Assignment, cancelled: Cancellation, show: Show) -> Ending:
    bind_contextvars(
        trace_id=trace_id_of(work.traceparent),
        plan_id=work.plan_id,
        task_id=work.task_id,
        attempt=work.attempt,
    )
    try:
        run = TaskRun(work, cancelled, show)
        returned = _run_async(handler, run, cancelled) if handler.is_async else handler(run)
        return conclude(returned, work.type)
    except BaseException as error:
        if not isinstance(error, TaskFailed) and not cancelled.is_set():
            log.info("handler_raised", kind=handler.kind, exc_info=error)
        return failure_of(error)


def _run_async(handler: Handler, run: TaskRun, cancelled: Cancellation) -> object:
    """Run an ``async def`` handler on a private loop; cancelling the attempt cancels its task."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(_cancellable(handler, run, cancelled))


async def _cancellable(handler: Handler, run: TaskRun, cancelled: Cancellation) -> object:
    loop = asyncio.get_running_loop()
    task: asyncio.Task[Any] = asyncio.ensure_future(handler(run))

    def stop() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    cancelled.on_cancel(stop)
    try:
        return await task
    except asyncio.CancelledError:
        run.raise_if_cancelled()
        raise
