"""A handler that notes when its first instruction ran."""

from time import monotonic

from service.executor.handlers import TaskRun, handler

began: dict[str, float] = {}


@handler("clock")
def clock(task: TaskRun) -> None:
    began[task.plan_id] = monotonic()
