"""How a reason shows a task, a time and a long message."""

from typing import Any

from projections.read_models.views import moment
from streams.plan.state import Task

MOST_CHARACTERS = 200


def glance(task: Task) -> dict[str, Any]:
    """A task as one line of evidence."""
    return {"task_id": task.spec.id, "status": task.status, "sequence": task.sequence}


def clock(at: float) -> str:
    """A log time as RFC 3339 in UTC, to the millisecond."""
    return moment(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def short(message: str) -> str:
    """A message, cut to what fits in a sentence."""
    return message if len(message) <= MOST_CHARACTERS else f"{message[: MOST_CHARACTERS - 1]}…"
