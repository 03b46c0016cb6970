"""The life cycle of a task as data: what may change into what, and by which trigger.

`streams.plan.cascade.Cascade.move` makes every change of a task's status and accepts the rows of
this table only; the drawing in ARCHITECTURE.md is generated from it.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

TaskStatus = Literal[
    "PENDING", "READY", "RUNNING", "REFINING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED"
]
PlanStatus = Literal["READY", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED"]
ExecutionStatus = Literal["running", "completed", "failed", "released", "cancelled", "lost"]

TASK_STATUSES: tuple[TaskStatus, ...] = (
    "PENDING", "READY", "RUNNING", "REFINING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED",
)  # fmt: skip
PLAN_STATUSES: tuple[PlanStatus, ...] = (
    "READY", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED",
)  # fmt: skip
ENDED: frozenset[TaskStatus] = frozenset({"COMPLETED", "FAILED", "SKIPPED", "CANCELLED"})
CLAIMABLE: frozenset[TaskStatus] = frozenset({"READY", "REFINING"})


class Transition(msgspec.Struct, frozen=True):
    """One row of a task's life cycle: in ``source``, ``trigger`` leads to ``target``.

    ``derived`` rows follow from a fact about another task or the plan.
    """

    source: TaskStatus
    trigger: str
    target: TaskStatus
    derived: bool = False


def _derived(sources: Iterable[TaskStatus], trigger: str, target: TaskStatus) -> list[Transition]:
    return [Transition(source, trigger, target, derived=True) for source in sources]


TRANSITIONS: tuple[Transition, ...] = (
    *_derived(["PENDING"], "dependencies satisfied", "READY"),
    *_derived(["PENDING", "READY"], "dependencies unsatisfiable", "SKIPPED"),
    *_derived(["READY"], "dependency reopened", "PENDING"),
    Transition("READY", "claimed", "RUNNING"),
    Transition("REFINING", "claimed", "RUNNING"),
    Transition("RUNNING", "reclaimed", "RUNNING"),
    Transition("RUNNING", "completed", "COMPLETED"),
    *_derived(["RUNNING"], "completed, verdict stale", "PENDING"),
    Transition("RUNNING", "failed, will retry", "REFINING"),
    Transition("RUNNING", "failed", "FAILED"),
    Transition("RUNNING", "released", "READY"),
    Transition("RUNNING", "released after a retry", "REFINING"),
    *_derived(["COMPLETED"], "rejected", "REFINING"),
    *_derived(["COMPLETED"], "rejected, retries spent", "FAILED"),
    *_derived(["READY", "RUNNING", "REFINING", "COMPLETED"], "target reopened", "PENDING"),
    *_derived(["PENDING", "READY", "REFINING"], "plan failed", "SKIPPED"),
    *_derived(["PENDING", "READY", "RUNNING", "REFINING"], "plan cancelled", "CANCELLED"),
    Transition("FAILED", "retried", "READY"),
    *_derived(["SKIPPED"], "plan retried", "PENDING"),
)
MOVES: dict[tuple[TaskStatus, str], TaskStatus] = {
    (row.source, row.trigger): row.target for row in TRANSITIONS
}
"""Where a trigger leads from a status; what is not here cannot happen."""
