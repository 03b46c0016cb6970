"""A handler that notes when its first instruction ran."""

import time

from holdfast_worker.handler import handler
from holdfast_worker.task import TaskRun
from tests.bench import start_latency


@handler("stopwatch")
def run(task: TaskRun) -> None:  # noqa: ARG001 - handlers are given their task
    """Tell the time."""
    start_latency.ON_START[-1](time.perf_counter())
