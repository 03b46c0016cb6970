"""Runs Holdfast tasks in your own service: claims, leases, heartbeats, checkpoints and results."""

from holdfast_worker.client import Client
from holdfast_worker.counters import Counters
from holdfast_worker.failures import Fatal, Retry, TaskCancelled, TaskFailed, Unsupported
from holdfast_worker.handler import Handler, handler
from holdfast_worker.limits import Limits
from holdfast_worker.logs import AttemptFilter
from holdfast_worker.task import AsyncTask, Result, Task, TaskRun
from holdfast_worker.version import VERSION
from holdfast_worker.views import Changes, Event, Gap, PlanView, Submission, TaskView, Why
from holdfast_worker.wire import HoldfastError, Refused, Unreachable
from holdfast_worker.worker import Worker

__version__ = VERSION

__all__ = [
    "AsyncTask",
    "AttemptFilter",
    "Changes",
    "Client",
    "Counters",
    "Event",
    "Fatal",
    "Gap",
    "Handler",
    "HoldfastError",
    "Limits",
    "PlanView",
    "Refused",
    "Result",
    "Retry",
    "Submission",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskRun",
    "TaskView",
    "Unreachable",
    "Unsupported",
    "Why",
    "Worker",
    "__version__",
    "handler",
]
