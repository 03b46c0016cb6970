"""Handlers that treat a worker thread badly, or tell which one it is; loaded as a user's are."""

import threading
import time

from service.executor.handlers import TaskRun, handler


@handler("blocks")
def blocks(task: TaskRun) -> None:
    """Sleeps in one call that nothing can interrupt."""
    time.sleep(task.input["seconds"])


@handler("burns")
def burns(task: TaskRun) -> int:
    """Computes in pure Python, which holds the interpreter's lock as much as it can."""
    until, rounds = time.monotonic() + task.input["seconds"], 0
    while time.monotonic() < until:
        rounds += sum(range(1000))
    return rounds


@handler("where")
def where(_: TaskRun) -> str:
    """The thread that it runs on."""
    return threading.current_thread().name


@handler("async_where")
async def async_where(_: TaskRun) -> str:
    """The thread that its private loop runs on."""
    return threading.current_thread().name


@handler("large")
def large(task: TaskRun) -> str:
    """Returns so many characters."""
    return "x" * task.input["bytes"]
