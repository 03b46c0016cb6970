"""A handler that raises while a local variable of it holds a secret."""

import os

from holdfast_worker.handler import handler
from holdfast_worker.task import TaskRun


@handler("careless_apart", pool="process")
def careless_apart(task: TaskRun) -> None:
    """The same in a process of its own, whose lines go to the same standard error."""
    careless(task)


@handler("careless")
def careless(task: TaskRun) -> None:
    """Raise with a secret in a local variable, and another one in the exception before."""
    password = os.environ["PLANTED_LOCAL"]
    key = os.environ["PLANTED_KEY"]
    try:
        raise ValueError(f"cannot use {key}")  # noqa: TRY301 - as careless code does
    except ValueError as error:
        raise RuntimeError(f"task {task.task_id} failed, {len(password)} characters") from error
