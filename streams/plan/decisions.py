"""What a command leads to: events to append, a duplicate that writes nothing, or a refusal.

`streams.plan.decide` has the rules.
"""

import msgspec

from streams.plan.events import Event
from streams.plan.lifecycle import PlanStatus, TaskStatus


class Accept(msgspec.Struct, frozen=True, gc=False):
    """Append ``events`` on the plan's subject, or the task's if given, at sequence ``expected``."""

    task_id: str | None
    expected: int
    events: tuple[Event, ...]


class Duplicate(msgspec.Struct, frozen=True):
    """The command was carried out before; ``sequence`` is where the log stood for it."""

    sequence: int


class Current(msgspec.Struct, frozen=True):
    """The present holder of a task, for an owner that has lost it."""

    status: TaskStatus
    owner: str | None
    attempt: int


class GuardReject(msgspec.Struct, frozen=True):
    """Owner or attempt no longer match: promise 1."""

    current: Current


class NotFound(msgspec.Struct, frozen=True):
    """There is no such plan, or no such task in it."""

    detail: str


class NotAllowed(msgspec.Struct, frozen=True):
    """The state forbids it; ``status`` is that of the plan or task that does."""

    status: TaskStatus | PlanStatus
    detail: str


class Invalid(msgspec.Struct, frozen=True):
    """The command contradicts itself or its plan; ``detail`` names the culprit."""

    detail: str


class OverLimit(msgspec.Struct, frozen=True):
    """A task would keep more than it may; ``detail`` names what, and the limit."""

    detail: str


class PlanExists(msgspec.Struct, frozen=True):
    """The id is taken by a different plan."""

    detail: str


Refusal = GuardReject | NotFound | NotAllowed | Invalid | OverLimit | PlanExists
Decision = Accept | Duplicate | Refusal
