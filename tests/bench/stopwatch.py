"""A handler that notes when its first instruction ran."""

import time

from service.executor.handlers.contract import TaskRun, handler
from tests.bench import start_latency


@handler("stopwatch")
def run(task: TaskRun) -> None:
    """Note the time."""
    start_latency.STARTED[task.plan_id] = time.perf_counter()
