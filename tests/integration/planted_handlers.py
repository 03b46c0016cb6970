"""A handler that raises while a local variable of it holds a secret."""

import os

from holdfast_worker.handler import handler
from holdfast_worker.task import TaskRun


@handler("careless")
def careless(task: TaskRun) -> None:
    """Raise with the secret in a local variable, in the exception before it, and in the message."""
    password = os.environ["PLANTED_LOCAL"]
    key = os.environ["PLANTED_KEY"]
    try:
        raise ValueError(f"cannot use {key}")  # noqa: TRY301 - as careless code does
    except ValueError as error:
        raise RuntimeError(f"task {task.task_id} failed, {len(password)} characters") from error
