"""How a reason shows a task and a long message."""

from typing import Any

from streams.plan.state import Task

MOST_CHARACTERS = 200


def glance(task: Task) -> dict[str, Any]:
    """A task as one line of evidence."""
    return {"task_id": task.spec.id, "status": task.status, "sequence": task.sequence}


def short(message: str) -> str:
    """A message, cut to what fits in a sentence."""
    return message if len(message) <= MOST_CHARACTERS else f"{message[: MOST_CHARACTERS - 1]}…"
