"""Handlers do the work of tasks. They are written against the worker kit (`holdfast_worker`).

The same function runs in the built-in executor (``executor.handlers``) and in a worker outside.
This package holds the built-in kinds, and the kit's names for handlers written before the kit.
"""

from holdfast_worker.cancellation import Cancellation, Stopping
from holdfast_worker.failures import TaskCancelled, TaskFailed
from holdfast_worker.handler import Handler, handler
from holdfast_worker.task import Result, TaskRun
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
