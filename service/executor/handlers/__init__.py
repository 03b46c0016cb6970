"""Handlers do the work of tasks: the contract that users write against, and the built-in kinds."""

from service.executor.attempts.failures import TaskCancelled, TaskFailed
from service.executor.handlers.contract import (
    Cancellation,
    Handler,
    Result,
    Stopping,
    TaskRun,
    handler,
)
from streams.plan.results import TokenUsage, Verdict

__all__ = [
    "Cancellation",
    "Handler",
    "Result",
    "Stopping",
    "TaskCancelled",
    "TaskFailed",
    "TaskRun",
    "TokenUsage",
    "Verdict",
    "handler",
]
