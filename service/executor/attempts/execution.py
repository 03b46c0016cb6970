"""Runs one handler in the worker thread and turns whatever it does into a value."""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, assert_never

import msgspec
import structlog
from msgspec import Raw
from structlog.contextvars import bind_contextvars

from service.executor.attempts.failures import TaskFailed, classify, describe, retry_in_s
from service.executor.handlers.contract import (
    Assignment,
    Cancellation,
    Handler,
    Result,
    TaskRun,
    verdict_of,
)
from streams.plan.events import NOTHING, TaskType, TokenUsage, Verdict
from streams.traceparent import trace_id_of

Show = Callable[[Raw], None]

log = structlog.get_logger("holdfast.executor")


class Success(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The handler returned; ``output`` is encoded, a critic's ``verdict`` is there."""

    output: Raw = NOTHING
    verdict: Verdict | None = None
    model_name: str | None = None
    token_usage: TokenUsage | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The handler raised, or returned what cannot be used."""

    error_type: str
    error_message: str
    retryable: bool = True
    retry_in_s: float | None = None
    model_name: str | None = None
    token_usage: TokenUsage | None = None


Ending = Success | Failure


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


def failure_of(error: BaseException) -> Failure:
    """What an exception is reported as."""
    error_type, retryable = classify(error)
    if not isinstance(error, TaskFailed):
        return Failure(
            error_type=error_type,
            error_message=describe(error),
            retryable=retryable,
            retry_in_s=retry_in_s(error) if retryable else None,
        )
    return Failure(
        error_type=error_type,
        error_message=describe(error),
        retryable=retryable,
        retry_in_s=error.retry_in_s,
        model_name=error.model_name,
        token_usage=error.token_usage,
    )


def conclude(returned: object, task_type: TaskType) -> Ending:
    """Encode what a handler returned; a critic's mapping with ``pass`` is its verdict."""
    result = returned if isinstance(returned, Result) else Result(returned)
    try:
        verdict = result.verdict or (verdict_of(result.output) if task_type == "critic" else None)
        output = Raw(msgspec.json.encode(result.output))
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        return _bad_output(f"what the handler returned is no JSON: {error}")
    match task_type:
        case "critic" if verdict is None:
            return _bad_output('a critic must return {"pass": true or false, "feedback": …}')
        case "worker" if verdict is not None:
            return _bad_output("only a critic may give a verdict; this task is a worker")
        case "critic" | "worker":
            pass
        case _:
            assert_never(task_type)
    return Success(
        output=output,
        verdict=verdict,
        model_name=result.model_name,
        token_usage=result.token_usage,
    )


def _bad_output(message: str) -> Failure:
    return Failure(error_type="bad_output", error_message=message, retryable=False)


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
