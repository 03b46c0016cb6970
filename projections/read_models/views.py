"""What Holdfast shows of plans, tasks and executions: the shapes of API.md, built from the fold.

The same shapes come out of the board (for a write's answer, which must not wait for SQLite) and
out of the read models, so they are defined once, here. Times are UTC; JSON inputs and outputs pass
through unread.
"""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Raw, UnsetType

from streams.plan.events import NOTHING, FailureRule, JoinRule, TaskType, TokenUsage
from streams.plan.lifecycle import ExecutionStatus, PlanStatus, TaskStatus
from streams.plan.limits import DEFAULT_LEASE_S, DEFAULT_TIMEOUT_S
from streams.plan.outputs import output_at_hand
from streams.plan.state import Execution, Plan, Task
from streams.traceparent import trace_id_of

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time in UTC, RFC 3339 in JSON; it is what makes a schema say `date-time`."""


class PlanView(msgspec.Struct, kw_only=True):
    """A plan as API.md shows it; ``counts`` has an entry for every task status.

    ``trace_id`` is that of the request that submitted it, here and in the views below.
    ``unreadable`` is there, with the reason, if the stored row cannot be shown whole: what could
    not be read is then null or empty. So one bad row hides no other.
    """

    plan_id: str
    name: str
    status: PlanStatus
    priority: int
    labels: dict[str, str]
    context: Raw
    created_at: Moment
    finished_at: Moment | None
    sequence: int
    counts: dict[TaskStatus, int]
    trace_id: str | None = None
    unreadable: str | UnsetType = UNSET


class TaskView(msgspec.Struct, kw_only=True):
    """A task as API.md shows it.

    ``timeout_s`` and ``lease_s`` are the defaults where the plan states none (an executor then uses
    its settings). ``truncated`` names what was left out of a list because it is too large: ask for
    the task.
    """

    plan_id: str
    task_id: str
    kind: str
    type: TaskType
    status: TaskStatus
    attempt: int
    retry: int
    lost: int
    owner: str | None
    lease_until: Moment | None
    claimable_at: Moment | None
    priority: int
    input: Raw
    output: Raw
    error_type: str | None
    error_message: str | None
    feedback: Raw
    depends_on: tuple[str, ...]
    join: JoinRule
    quorum: int | None
    on_failure: FailureRule
    max_retries: int
    max_lost_leases: int
    timeout_s: float
    lease_s: float
    target: str | None
    sequence: int
    created_at: Moment
    updated_at: Moment
    trace_id: str | None = None
    truncated: tuple[str, ...] = ()
    unreadable: str | UnsetType = UNSET


class ExecutionView(msgspec.Struct, kw_only=True):
    """One attempt as API.md shows it; ``duration_s`` runs from its start (or claim) to its end."""

    plan_id: str
    task_id: str
    attempt: int
    owner: str
    status: ExecutionStatus
    claimed_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    duration_s: float | None
    model_name: str | None
    token_usage: TokenUsage | None
    error_type: str | None
    error_message: str | None
    sequence: int
    trace_id: str | None = None
    unreadable: str | UnsetType = UNSET


_EPOCH = datetime.fromtimestamp(0, UTC)
_LAST_MOMENT = datetime.max.replace(microsecond=0, tzinfo=UTC)


def moment(at: float) -> datetime:
    """Seconds since the epoch as a UTC datetime; what lies beyond the year 9999 is its last second.

    Never raises: a deadline in the far future must not hide the rest of the answer.
    """
    try:
        return datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        return _LAST_MOMENT if at > 0 else _EPOCH


def moment_or_none(at: float | None) -> datetime | None:
    """`moment`, passing None through."""
    return None if at is None else moment(at)


def plan_view(plan: Plan) -> PlanView:
    """Show ``plan`` as it is folded now."""
    return PlanView(
        plan_id=plan.plan_id,
        name=plan.spec.name,
        status=plan.status,
        priority=plan.spec.priority,
        labels=plan.spec.labels,
        context=plan.spec.context,
        created_at=moment(plan.created_at),
        finished_at=moment_or_none(plan.finished_at),
        sequence=plan.sequence,
        counts=dict(plan.counts),
        trace_id=trace_id_of(plan.traceparent),
    )


def task_view(
    plan_id: str,
    created_at: float,
    task: Task,
    traceparent: str = "",
    *,
    output: Raw | None = None,
) -> TaskView:
    """Show ``task`` as it is folded now; ``created_at`` and ``traceparent`` are its plan's.

    ``output`` is what it completed with, for a task whose output may have left memory.
    """
    error_type, error_message = task.error or (None, None)
    spec = task.spec
    return TaskView(
        plan_id=plan_id,
        task_id=spec.id,
        kind=spec.kind,
        type=spec.type,
        status=task.status,
        attempt=task.attempt,
        retry=task.retry,
        lost=task.lost,
        owner=task.owner,
        lease_until=moment_or_none(task.lease_until),
        claimable_at=moment_or_none(task.claimable_at),
        priority=spec.priority,
        input=spec.input,
        output=output_at_hand(task) or output or NOTHING,
        error_type=error_type,
        error_message=error_message,
        feedback=task.feedback,
        depends_on=spec.depends_on,
        join=spec.join,
        quorum=spec.quorum,
        on_failure=spec.on_failure,
        max_retries=spec.max_retries,
        max_lost_leases=spec.max_lost_leases,
        timeout_s=spec.timeout_s or DEFAULT_TIMEOUT_S,
        lease_s=spec.lease_s or DEFAULT_LEASE_S,
        target=spec.target,
        sequence=task.sequence,
        created_at=moment(created_at),
        updated_at=moment(task.updated_at),
        trace_id=trace_id_of(traceparent),
    )


def execution_view(
    plan_id: str, task_id: str, execution: Execution, traceparent: str = ""
) -> ExecutionView:
    """Show one attempt as it is folded now; ``traceparent`` is its plan's."""
    began = execution.claimed_at if execution.started_at is None else execution.started_at
    ended = execution.finished_at
    return ExecutionView(
        plan_id=plan_id,
        task_id=task_id,
        attempt=execution.attempt,
        owner=execution.owner,
        status=execution.status,
        claimed_at=moment(execution.claimed_at),
        started_at=moment_or_none(execution.started_at),
        finished_at=moment_or_none(ended),
        duration_s=None if ended is None else round(max(ended - began, 0.0), 6),
        model_name=execution.model_name,
        token_usage=execution.token_usage,
        error_type=execution.error_type,
        error_message=execution.error_message,
        sequence=execution.sequence,
        trace_id=trace_id_of(traceparent),
    )
