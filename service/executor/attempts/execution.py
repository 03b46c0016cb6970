"""Runs one handler in the worker thread and turns whatever it does into a value."""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import structlog
from msgspec import Raw, convert
from msgspec.structs import replace
from structlog.contextvars import bind_contextvars

from holdfast_worker.cancellation import Cancellation
from holdfast_worker.failures import TaskFailed
from holdfast_worker.handler import AnyHandler
from holdfast_worker.logs import bound
from holdfast_worker.progress import Shown
from holdfast_worker.task import Assignment, Keep, TaskRun
from holdfast_worker.tokens import Spent
from service.executor.attempts.endings import Ending, conclude, failure_of
from streams.json_values import check
from streams.plan.results import TokenUsage
from streams.traceparent import trace_id_of

Show = Callable[[Shown], None]

log = structlog.get_logger("holdfast.executor")


def execute(
    handler: AnyHandler,
    work: Assignment,
    cancelled: Cancellation,
    show: Show,
    keep: Keep | None = None,
) -> Ending:
    """Run ``handler`` on this thread to its end; never raises. ``keep`` stores its checkpoints.

    Lines logged meanwhile bear the attempt and its trace.
    """
    return copy_context().run(_execute, handler, work, cancelled, show, keep)


async def execute_on_loop(
    handler: AnyHandler,
    work: Assignment,
    cancelled: Cancellation,
    show: Show,
    keep: Keep | None = None,
) -> Ending:
    """Run an ``async def`` handler on the running loop, beside others; never raises.

    Runs in a task of its own. See `execute`.
    """
    _name_lines(work)
    try:
        run = handler.task_class(work, cancelled, _checked(show), keep)
        with bound(work.plan_id, work.task_id, work.attempt):
            return _with_tokens(await _ended_on_loop(handler, run, work, cancelled), run.spent)
    except Exception as error:  # noqa: BLE001 - as in `_execute`
        return failure_of(error)


def _name_lines(work: Assignment) -> None:
    bind_contextvars(
        trace_id=trace_id_of(work.traceparent),
        plan_id=work.plan_id,
        task_id=work.task_id,
        attempt=work.attempt,
    )


def _execute(
    handler: AnyHandler, work: Assignment, cancelled: Cancellation, show: Show, keep: Keep | None
) -> Ending:
    _name_lines(work)
    try:
        run = handler.task_class(work, cancelled, _checked(show), keep)
        with bound(work.plan_id, work.task_id, work.attempt):
            return _with_tokens(_ended(handler, run, work, cancelled), run.spent)
    except Exception as error:  # noqa: BLE001 - the task cannot be shown, such as JSON too deep
        return failure_of(error)


def _ended(handler: AnyHandler, run: TaskRun, work: Assignment, cancelled: Cancellation) -> Ending:
    try:
        if handler.is_async:
            returned = _run_async(handler, run, work, cancelled)
        else:
            returned = handler.invoke(run, work.input)
        return conclude(returned, work.type)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it ends this attempt only
        return _raised(handler, cancelled, error)


async def _ended_on_loop(
    handler: AnyHandler, run: TaskRun, work: Assignment, cancelled: Cancellation
) -> Ending:
    try:
        return conclude(await _cancellable(handler, run, work, cancelled), work.type)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it ends this attempt only
        return _raised(handler, cancelled, error)


def _raised(handler: AnyHandler, cancelled: Cancellation, error: BaseException) -> Ending:
    if not isinstance(error, TaskFailed) and not cancelled.is_set():
        log.info("handler_raised", kind=handler.kind, exc_info=error)
    return failure_of(error)


def _checked(show: Show) -> Show:
    """Refuses, in the handler, progress that not every reader of the log could follow."""

    def checked(shown: Shown) -> None:
        if isinstance(shown, Raw):
            check(shown)
        show(shown)

    return checked


def _with_tokens(ending: Ending, spent: Spent) -> Ending:
    """The ending with the tokens that the handler counted, unless it states its own."""
    if ending.token_usage is not None or (usage := spent.usage) is None:
        return ending
    model_name = ending.model_name or spent.model_name
    return replace(ending, token_usage=convert(usage, TokenUsage), model_name=model_name)


def _run_async(
    handler: AnyHandler, run: TaskRun, work: Assignment, cancelled: Cancellation
) -> object:
    """Run an ``async def`` handler on a private loop; cancelling the attempt cancels its task."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(_cancellable(handler, run, work, cancelled))


async def _cancellable(
    handler: AnyHandler, run: TaskRun, work: Assignment, cancelled: Cancellation
) -> object:
    loop = asyncio.get_running_loop()
    task: asyncio.Task[Any] = asyncio.ensure_future(handler.invoke(run, work.input))

    def stop() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    cancelled.on_cancel(stop)
    try:
        return await task
    except asyncio.CancelledError:
        run.raise_if_cancelled()
        raise
