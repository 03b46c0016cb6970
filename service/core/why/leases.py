"""What a task that runs says of its lease: who holds it, or that it has expired."""

from typing import Any

from projections.read_models.views import moment
from service.core.why.reasons import Reason, Surroundings
from service.core.why.waiting import in_lane
from streams.plan.state import Plan, Task
from streams.timestamps import rfc3339


def of_lease(plan: Plan, task: Task, around: Surroundings, gates: list[Reason]) -> list[Reason]:
    """The lease of a RUNNING task, then what keeps others from taking it over if it expired."""
    until = task.lease_until or 0.0
    if until > around.now:
        return [_lease_held(task, until, around.now, ends=bool(plan.fatal)), *gates]
    expired = _lease_expired(plan, task, until, around.now)
    reclaimable = plan.hands_out_tasks and not task.leases_spent
    return [expired, *gates, *(in_lane(task, around) if reclaimable else [])]


def _lease(task: Task, until: float) -> dict[str, Any]:
    execution = task.execution
    started = execution.started_at if execution is not None else None
    return {
        "owner": task.owner,
        "attempt": task.attempt,
        "lease_until": moment(until),
        "lease_s": task.lease_s,
        "last_sign_of_life": moment(until - task.lease_s),
        "started_at": None if started is None else moment(started),
        "lost": task.lost,
        "max_lost_leases": task.spec.max_lost_leases,
        "sequences": sorted({task.claimed_sequence, task.subject_sequence}),
    }


def _lease_held(task: Task, until: float, now: float, *, ends: bool) -> Reason:
    silent_s = max(now - (until - task.lease_s), 0.0)
    asked_to_end = "; it has been asked to stop, because the plan failed" if ends else ""
    return Reason(
        code="lease_held",
        says=f"runs: '{task.owner}' holds attempt {task.attempt} until "
        f"{rfc3339(until, 'milliseconds')} and gave a sign of life {silent_s:.1f} s ago"
        f"{asked_to_end}.",
        evidence=_lease(task, until),
        next="its owner writes a result or renews the lease; if it is silent, another worker may "
        f"take the task over in {until - now:.1f} s",
    )


def _lease_expired(plan: Plan, task: Task, until: float, now: float) -> Reason:
    if task.leases_spent:
        after = "no more leases may be lost: housekeeping fails it as 'lease_expired' in seconds"
    elif not plan.hands_out_tasks:
        after = f"the plan is {plan.status}: housekeeping ends the attempt in seconds"
    else:
        after = "the next worker that asks for this kind takes it over"
    return Reason(
        code="lease_expired_unclaimed",
        says=f"has lost its worker: the lease of '{task.owner}' expired {now - until:.1f} s ago "
        "and no other worker has taken the task over.",
        evidence=_lease(task, until),
        next=after,
    )
