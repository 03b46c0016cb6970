"""Why a task that has not begun waits: for others, for a time, or for a worker."""

from difflib import get_close_matches
from typing import Any

from projections.read_models.views import moment
from service.core.demand import NOT_ASKED_S
from service.core.why.reasons import MOST_EXAMPLES, Reason, Surroundings, glance
from streams.plan.lifecycle import ENDED
from streams.plan.state import Plan, Task
from streams.timestamps import rfc3339


def for_dependencies(plan: Plan, task: Task) -> Reason:
    """It waits for dependencies, or as a critic for its target."""
    spec = task.spec
    waited_for = [plan.tasks[name] for name in spec.depends_on]
    pending = [each for each in waited_for if each.status not in ENDED]
    evidence: dict[str, Any] = {
        "waits_for": [glance(each) for each in pending[:MOST_EXAMPLES]],
        "pending": len(pending),
        "dependencies": len(waited_for),
        "sequences": [each.sequence for each in pending[:MOST_EXAMPLES]],
    }
    names = ", ".join(f"'{each.spec.id}' ({each.status})" for each in pending[:MOST_EXAMPLES])
    more = f" and {len(pending) - MOST_EXAMPLES} more" if len(pending) > MOST_EXAMPLES else ""
    if spec.join == "all" or spec.type == "critic":
        return Reason(
            code="dependency_pending",
            says=f"waits for {names}{more}.",
            evidence=evidence,
            next="it becomes READY when the last of them has ended well",
        )
    needed = 1 if spec.join == "any" else spec.quorum or len(waited_for)
    return Reason(
        code="join_waits",
        says=f"needs {needed} of its {len(waited_for)} dependencies COMPLETED and has "
        f"{task.completed}; still open: {names}{more}.",
        evidence={**evidence, "join": spec.join, "needed": needed, "completed": task.completed},
        next=f"it becomes READY when {needed - task.completed} more of them complete, and SKIPPED "
        "when that has become impossible",
    )


def stale_verdict(plan: Plan, task: Task) -> list[Reason]:
    """A critic that has given a verdict and waits again: that verdict no longer counts."""
    execution = task.execution
    if task.spec.target is None or execution is None or execution.status != "completed":
        return []
    target = plan.tasks[task.spec.target]
    return [
        Reason(
            code="verdict_stale",
            says=f"gave a verdict in attempt {execution.attempt} that no longer counts, because "
            f"its target '{target.spec.id}' is being worked on again ({target.status}).",
            evidence={
                "target": glance(target),
                "attempt": execution.attempt,
                "sequences": [execution.sequence, target.settled_sequence],
            },
            next="it judges again when its target has ended",
        )
    ]


def for_claim(task: Task, around: Surroundings, *, gated: bool) -> list[Reason]:
    """Why a READY or REFINING task has not been claimed; ``gated``: its plan is the reason."""
    due = task.claimable_at or 0
    if due > around.now:
        return [_delayed(task, due, around.now)]
    return [] if gated else in_lane(task, around)


def _delayed(task: Task, due: float, now: float) -> Reason:
    evidence: dict[str, Any] = {
        "claimable_at": moment(due),
        "left_s": round(due - now, 3),
        "sequences": [task.sequence],
    }
    after = f"it becomes claimable at {rfc3339(due, 'milliseconds')}"
    if task.retry and task.releases == 0:
        error_type, message = task.error or ("rejected", "a critic rejected its output")
        evidence |= {
            "retry": task.retry,
            "max_retries": task.spec.max_retries,
            "error_type": error_type,
            "error_message": message,
        }
        return Reason(
            code="retry_delay",
            says=f"failed ({error_type}) and waits {due - now:.1f} s before retry {task.retry} of "
            f"{task.spec.max_retries}.",
            evidence=evidence,
            next=after,
        )
    return Reason(
        code="delay",
        says=f"was given back and waits {due - now:.1f} s before it is offered again.",
        evidence={**evidence, "releases": task.releases},
        next=after,
    )


def in_lane(task: Task, around: Surroundings) -> list[Reason]:
    """Why a task that could be claimed has not been."""
    kind = task.spec.kind
    standing = around.standing(task)
    evidence: dict[str, Any] = {"kind": kind, "running": around.running.get(kind, 0)}
    evidence["sequences"] = [task.sequence]
    if standing is None or standing.reserved:
        return [
            Reason(
                code="reserved",
                says="is being claimed at this moment.",
                evidence=evidence,
                next="the claim is written, or the task is offered again, within a second",
            )
        ]
    asked = around.asked(kind)
    evidence |= {
        "lane": standing.lane,
        "ahead": standing.ahead,
        "claimable": standing.claimable,
        "claimable_since": moment(standing.since),
        "asked_at": None if asked is None else moment(asked),
    }
    silent = asked is None or around.now - asked >= NOT_ASKED_S
    if silent and not around.running.get(kind):
        return [_no_worker(kind, asked, evidence, around)]
    reasons = [_busy(kind, asked, evidence, around)] if silent else []
    if standing.ahead:
        reasons.append(
            Reason(
                code="lane_behind",
                says=f"waits behind about {standing.ahead} other tasks of kind '{kind}'.",
                evidence=evidence,
                next="plans take turns, by priority; more workers of this kind shorten the wait",
            )
        )
    return reasons or [
        Reason(
            code="next_in_lane",
            says=f"is the next of kind '{kind}' to be claimed.",
            evidence=evidence,
            next="the next worker that asks for this kind gets it",
        )
    ]


def _no_worker(
    kind: str, asked: float | None, evidence: dict[str, Any], around: Surroundings
) -> Reason:
    near = get_close_matches(kind, [each for each in around.known_kinds if each != kind], n=1)
    when = "" if asked is None else f" for {around.now - asked:.0f} s"
    says = f"waits because no worker has asked for kind '{kind}'{when}."
    if near:
        says = f"{says[:-1]}; did you mean '{near[0]}'?"
    return Reason(
        code="no_worker",
        says=says,
        evidence={**evidence, "did_you_mean": near[0] if near else None},
        next="start a worker for this kind; if the kind is misspelt, cancel the plan and submit it "
        "with the right one",
    )


def _busy(kind: str, asked: float | None, evidence: dict[str, Any], around: Surroundings) -> Reason:
    when = "was seen asking" if asked is None else f"has asked for {around.now - asked:.0f} s"
    return Reason(
        code="workers_busy",
        says=f"waits because all workers of kind '{kind}' are busy with "
        f"{around.running.get(kind, 0)} tasks: none {when}.",
        evidence=evidence,
        next="one of them ends a task and asks again; more workers shorten the wait",
    )
