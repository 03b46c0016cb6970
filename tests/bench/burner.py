"""A handler that computes in pure Python until its time or its attempt is over."""

import time

from holdfast_worker.handler import handler
from holdfast_worker.task import TaskRun


@handler("bench_burns")
def run(task: TaskRun) -> None:
    """Hold the interpreter's lock as much as a handler can."""
    until = time.monotonic() + task.input["seconds"]
    while time.monotonic() < until:
        task.raise_if_cancelled()
        sum(range(1000))
