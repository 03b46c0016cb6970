"""What a `Client` is answered, typed; fields that this version does not know are ignored."""

from datetime import datetime
from typing import Any

import msgspec


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A plan is in the log; ``created`` is False when it already was.

    ``warnings`` are for a person to read, such as that an input looks like a key.
    """

    plan_id: str
    sequence: int
    created: bool
    warnings: tuple[str, ...] = ()


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it stands. ``status``: see docs/reference/events.md; durations are seconds.

    Large inputs and outputs are left out of lists and named in ``truncated``.
    """

    plan_id: str
    task_id: str
    kind: str
    status: str
    type: str = "worker"
    attempt: int = 0
    retry: int = 0
    lost: int = 0
    owner: str | None = None
    priority: int = 0
    input: Any = None
    output: Any = None
    error_type: str | None = None
    error_message: str | None = None
    feedback: Any = None
    depends_on: list[str] = []
    sequence: int = 0
    truncated: list[str] = []
    executions: list[dict[str, Any]] = []
    checkpoints: dict[str, Any] = {}


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """A plan as it stands; ``counts`` has the number of its tasks per status."""

    plan_id: str
    status: str
    name: str = ""
    priority: int = 0
    labels: dict[str, str] = {}
    context: Any = None
    created_at: datetime | None = None
    finished_at: datetime | None = None
    sequence: int = 0
    counts: dict[str, int] = {}
    tasks: list[TaskView] = []

    @property
    def finished(self) -> bool:
        """Whether nothing of the plan runs any more."""
        return self.finished_at is not None

    def task(self, task_id: str) -> TaskView:
        """The task with this id. Raises KeyError."""
        for each in self.tasks:
            if each.task_id == task_id:
                return each
        raise KeyError(task_id)


class Changes(msgspec.Struct, frozen=True):
    """Tasks that changed, as they are now, and the ``sequence`` up to which that is complete."""

    tasks: list[TaskView]
    sequence: int


class Reason(msgspec.Struct, frozen=True):
    """One reason: a code, what shows it, and what would change it."""

    code: str
    evidence: dict[str, Any] = {}
    next: str = ""


class Why(msgspec.Struct, frozen=True):
    """Why a plan or task does not run, or how it ended: one sentence, and its reasons."""

    answer: str
    reasons: list[Reason] = []


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One fact of the log. ``data`` has the fields of its ``type`` (docs/reference/events.md)."""

    sequence: int
    at: datetime
    plan_id: str
    type: str
    task_id: str | None = None
    data: dict[str, Any] = {}


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Events are missing: those after ``requested`` and before ``first`` are no longer kept.

    ``reason`` is ``expired``, ``ahead_of_log`` when the cursor belongs to another log, or
    ``forgotten`` when facts after the cursor belonged to plans that have been forgotten since. Read
    the plans again (`Client.get`); the stream continues from what exists.
    """

    requested: int
    first: int
    head: int
    reason: str
