"""The rules: what a command leads to in a given state at a given time.

``decide(command, plan, now) → Decision`` is pure. An accepted command names the events to append
and the subject they belong to; everything else is a value that says why not. ``now`` is log time
in seconds since the epoch.
"""

from typing import assert_never

from streams.plan import checkpoints, commands, dependencies
from streams.plan.canonical import same_plan
from streams.plan.decisions import (
    Accept,
    Current,
    Decision,
    Duplicate,
    GuardReject,
    Invalid,
    NotAllowed,
    NotFound,
    OverLimit,
    PlanExists,
    Refusal,
)
from streams.plan.events import (
    Cancelled,
    Checkpointed,
    Claimed,
    Completed,
    Event,
    Failed,
    Finished,
    Forgotten,
    Heartbeat,
    Lane,
    Paused,
    Progress,
    Released,
    Resumed,
    Retried,
    Started,
)
from streams.plan.lifecycle import CLAIMABLE
from streams.plan.limits import DEFAULT_LEASE_S
from streams.plan.outputs import same_result
from streams.plan.results import carried, with_total
from streams.plan.retry import backoff_s, release_delay_s
from streams.plan.state import LEASE_EXPIRED, TIMEOUT, Plan, Result, Task

TaskCommand = commands.OwnerCommand | commands.Claim | commands.Expire | commands.Overrun
PlanCommand = (
    commands.Pause
    | commands.Resume
    | commands.Cancel
    | commands.Retry
    | commands.RetryAll
    | commands.Finish
    | commands.Forget
)
Ruling = tuple[Event, ...] | Duplicate | Refusal
"""The events that a command leads to, or why to none."""


def decide(command: commands.Command, plan: Plan | None, now: float) -> Decision:
    """Judge ``command`` against the folded ``plan`` (None: there is none) at log time ``now``."""
    if isinstance(command, commands.Submit):
        return _submit(command, plan)
    if plan is None:
        return NotFound(f"there is no plan '{command.plan_id}'")
    if isinstance(command, TaskCommand):
        return _about_task(command, plan, now)
    if isinstance(command, PlanCommand):
        return _about_plan(command, plan)
    return Invalid(f"{type(command).__name__} is not a command about a plan")


def _about_task(command: TaskCommand, plan: Plan, now: float) -> Decision:
    task = plan.tasks.get(command.task_id)
    if task is None:
        return _no_task(plan, command.task_id)
    if plan.unreadable_at is not None or task.unreadable_at is not None:
        return _unreadable(plan, task)
    match command:
        case commands.OwnerCommand():
            ruling = _owned(command, task)
        case commands.Claim():
            ruling = _claim(command, plan, task, now)
        case commands.Expire():
            ruling = _expire(plan, task, now)
        case commands.Overrun():
            ruling = _overrun(command, task, now)
        case _:
            assert_never(command)
    if isinstance(ruling, tuple):
        return Accept(task.spec.id, task.subject_sequence, ruling)
    return ruling


def _about_plan(command: PlanCommand, plan: Plan) -> Decision:
    if plan.unreadable_at is not None:
        return _unreadable(plan, None)
    match command:
        case commands.Pause():
            ruling = _pause(command, plan)
        case commands.Resume():
            ruling = _resume(command, plan)
        case commands.Cancel():
            ruling = _cancel(command, plan)
        case commands.Retry() | commands.RetryAll():
            ruling = _retry(command, plan)
        case commands.Finish():
            ruling = _finish(plan)
        case commands.Forget():
            ruling = _forget(plan)
        case _:
            assert_never(command)
    if isinstance(ruling, tuple):
        return Accept(None, plan.subject_sequence, ruling)
    return ruling


def _no_task(plan: Plan, task_id: str) -> NotFound:
    return NotFound(f"plan '{plan.plan_id}' has no task '{task_id}'")


def _unreadable(plan: Plan, task: Task | None) -> NotAllowed:
    """Nothing may be written on top of a fact that this version cannot read."""
    if plan.unreadable_at is None and task is not None:
        where = f"sequence {task.unreadable_at} on the subject of task '{task.spec.id}'"
        return NotAllowed(task.status, f"an unreadable fact stands at {where}")
    where = f"sequence {plan.unreadable_at} on the subject of plan '{plan.plan_id}'"
    return NotAllowed(plan.status, f"an unreadable fact stands at {where}")


# -- plans ------------------------------------------------------------------------------------


def _submit(command: commands.Submit, plan: Plan | None) -> Decision:
    wanted = dependencies.settle(command.plan)
    if plan is not None:
        if same_plan(plan.spec, wanted):
            return Duplicate(plan.sequence)
        return PlanExists(f"the id '{command.plan_id}' is taken by a different plan")
    if complaint := dependencies.complaint(wanted.tasks):
        return Invalid(complaint)
    return Accept(None, 0, (wanted,))


def _pause(command: commands.Pause, plan: Plan) -> Ruling:
    if plan.status == "PAUSED":
        return Duplicate(plan.sequence)
    if plan.status not in ("READY", "RUNNING"):
        return NotAllowed(plan.status, f"a plan that is {plan.status} cannot be paused")
    return (Paused(reason=command.reason),)


def _resume(command: commands.Resume, plan: Plan) -> Ruling:
    if plan.status in ("READY", "RUNNING"):
        return Duplicate(plan.sequence)
    if plan.status != "PAUSED":
        return NotAllowed(plan.status, f"a plan that is {plan.status} cannot be resumed")
    return (Resumed(reason=command.reason),)


def _cancel(command: commands.Cancel, plan: Plan) -> Ruling:
    if plan.status == "CANCELLED":
        return Duplicate(plan.sequence)
    if plan.status == "COMPLETED" or plan.finished_at is not None:
        return NotAllowed(plan.status, f"a plan that is {plan.status} cannot be cancelled")
    return (Cancelled(reason=command.reason),)


def _finish(plan: Plan) -> Ruling:
    if plan.finished_at is not None:
        return Duplicate(plan.sequence)
    status = plan.status
    if not plan.can_finish or status not in ("COMPLETED", "FAILED", "CANCELLED"):
        return NotAllowed(status, "something of the plan can still run")
    return (Finished(status=status),)


def _forget(plan: Plan) -> Ruling:
    if plan.finished_at is None:
        return NotAllowed(plan.status, "only a plan that has ended can be forgotten")
    return (Forgotten(),)


def _retry(command: commands.Retry | commands.RetryAll, plan: Plan) -> Ruling:
    if isinstance(command, commands.Retry):
        task = plan.tasks.get(command.task_id)
        if task is None:
            return _no_task(plan, command.task_id)
        if task.status != "FAILED":
            detail = f"only a FAILED task can be retried; '{command.task_id}' is {task.status}"
            return NotAllowed(task.status, detail)
        failed = [command.task_id]
    else:
        failed = [name for name, each in plan.tasks.items() if each.status == "FAILED"]
        if not failed:
            return NotAllowed(plan.status, "no task of the plan is FAILED")
    if plan.cancelled:
        return NotAllowed(plan.status, "the plan is cancelled")
    first, *also = failed
    retried = Retried(task_id=first, reason=command.reason, also=tuple(also), fresh=command.fresh)
    return (retried,)


# -- tasks ------------------------------------------------------------------------------------


def can_reclaim(task: Task, now: float) -> bool:
    """Whether the lease has expired and another owner may take it over."""
    return (
        task.status == "RUNNING"
        and task.lease_until is not None
        and task.lease_until <= now
        and not task.leases_spent
    )


def _claim(command: commands.Claim, plan: Plan, task: Task, now: float) -> Ruling:
    if not plan.hands_out_tasks:
        return NotAllowed(plan.status, f"a plan that is {plan.status} hands out no tasks")
    due = task.status in CLAIMABLE and (task.claimable_at or 0) <= now
    if not due and not can_reclaim(task, now):
        return NotAllowed(task.status, "the task is not claimable now")
    lane: Lane = "refining" if task.status == "REFINING" else "ready"
    claimed = Claimed(
        owner=command.owner,
        attempt=task.attempt + 1,
        lease_s=command.lease_s or task.spec.lease_s or DEFAULT_LEASE_S,
        lane=lane,
        previous_owner=task.owner,
        silent=task.owner is not None and task.spared,
        started=command.start,
        timeout_s=command.timeout_s,
    )
    return (claimed,)


def _expire(plan: Plan, task: Task, now: float) -> Ruling:
    expired = task.status == "RUNNING" and task.lease_until is not None and task.lease_until <= now
    if not expired or task.owner is None:
        return NotAllowed(task.status, "the task has no expired lease")
    spent = task.leases_spent
    if plan.status == "PAUSED" and not spent:
        released = Released(owner=task.owner, attempt=task.attempt, reason=LEASE_EXPIRED)
        return (released,)
    if not spent and plan.hands_out_tasks:
        return NotAllowed(task.status, "the next claim takes the lease over")
    message = f"the lease of attempt {task.attempt} expired on its owner {task.owner}"
    if spent:
        message += f"; {task.lost} leases were lost before it, and no more may be"
    failed = Failed(
        owner=task.owner, attempt=task.attempt, error_type=LEASE_EXPIRED, error_message=message
    )
    return (failed,)


def _overrun(command: commands.Overrun, task: Task, now: float) -> Ruling:
    overdue_at = task.overdue_at
    if overdue_at is None or overdue_at > now or task.owner is None:
        return NotAllowed(task.status, "the task has not outlived its time-out by a lease")
    fail = commands.Fail(
        plan_id=command.plan_id,
        task_id=command.task_id,
        owner=task.owner,
        attempt=task.attempt,
        error_type=TIMEOUT,
        error_message=f"attempt {task.attempt} of {task.owner} has outlived its time-out of "
        f"{task.timeout_s:g} s by one lease",
        timeout_retry_max=command.timeout_retry_max,
    )
    return (_result(fail, task),)


def _owned(command: commands.OwnerCommand, task: Task) -> Ruling:
    if isinstance(command, commands.Complete) and (complaint := _verdict_complaint(command, task)):
        return Invalid(complaint)
    holds = task.owner == command.owner and task.attempt == command.attempt
    if task.status != "RUNNING" or not holds:
        return _said_before(command, task) or GuardReject(
            Current(task.status, task.owner, task.attempt)
        )
    owner, attempt = command.owner, command.attempt
    match command:
        case commands.Complete() | commands.Fail() | commands.Release():
            return (_result(command, task),)
        case commands.Heartbeat():
            renewed = Heartbeat(owner=owner, attempt=attempt, lease_s=task.lease_s)
            if command.progress is None:
                return (renewed,)
            shown = Progress(owner=owner, attempt=attempt, data=command.progress)
            return (shown, renewed)
        case commands.Start():
            if task.execution is not None and task.execution.started_at is not None:
                return Duplicate(task.execution.sequence)
            return (Started(owner=owner, attempt=attempt),)
        case commands.Progress():
            return (Progress(owner=owner, attempt=attempt, data=command.data),)
        case commands.Checkpoint():
            return _checkpoint(command, task)
        case _:
            return Invalid(f"{type(command).__name__} is not an owner's command")


def _checkpoint(command: commands.Checkpoint, task: Task) -> Ruling:
    owner, attempt = command.owner, command.attempt
    usage = with_total(command.token_usage)
    if checkpoints.said_before(task, command.key, command.value, usage):
        # A repetition, whose answer got lost: nothing is kept or counted twice.
        return (Heartbeat(owner=owner, attempt=attempt, lease_s=task.lease_s),)
    if excess := checkpoints.over_limit(task, command.key, len(command.value)):
        return OverLimit(excess)
    kept = Checkpointed(
        owner=owner,
        attempt=attempt,
        key=command.key,
        value=command.value,
        lease_s=task.lease_s,
        token_usage=usage,
    )
    return (kept,)


def _verdict_complaint(command: commands.Complete, task: Task) -> str | None:
    if task.spec.type == "critic" and command.verdict is None:
        return f"verdict: the critic '{task.spec.id}' must give one"
    if task.spec.type == "worker" and command.verdict is not None:
        return f"verdict: the task '{task.spec.id}' is a worker; only critics give verdicts"
    return None


def _result(command: commands.Complete | commands.Fail | commands.Release, task: Task) -> Result:
    usage = with_total(command.token_usage)
    match command:
        case commands.Complete():
            # The most frequent: `carried` would take ten times as long.
            return Completed(
                owner=command.owner,
                attempt=command.attempt,
                output=command.output,
                verdict=command.verdict,
                model_name=command.model_name,
                token_usage=usage,
            )
        case commands.Fail():
            wait_s = _retry_in_s(command, task)
            return carried(Failed, command, token_usage=usage, retry_in_s=wait_s)
        case commands.Release():
            wait_s = _release_in_s(command, task)
            return carried(Released, command, token_usage=usage, retry_in_s=wait_s)
        case _:
            assert_never(command)


def _retry_in_s(command: commands.Fail, task: Task) -> float | None:
    """Seconds until the next try; None when the failure is final (DESIGN §4, *Two budgets*)."""
    if not command.retryable or task.retry >= task.spec.max_retries:
        return None
    if command.error_type == TIMEOUT and task.timeouts >= command.timeout_retry_max:
        return None
    if command.retry_in_s is not None:
        return command.retry_in_s
    return backoff_s(task.retry, task.claimed_sequence)


def _release_in_s(command: commands.Release, task: Task) -> float | None:
    """Seconds until the task may be claimed again; None: at once."""
    wait_s = command.retry_in_s
    return (release_delay_s(task.releases) if wait_s is None else wait_s) or None


def _said_before(command: commands.OwnerCommand, task: Task) -> Duplicate | None:
    """A repeated result (same owner, attempt and content) is a duplicate, not an error."""
    if not isinstance(command, commands.Complete | commands.Fail | commands.Release):
        return None
    return Duplicate(task.sequence) if same_result(_result(command, task), task) else None
