"""Why one task does not run (or that it runs, or how it ended): pure, from its plan as folded."""

from typing import Any

from projections.read_models.views import moment
from service.core.why.leases import of_lease
from service.core.why.reasons import MOST_EXAMPLES, Reason, Surroundings, Why, glance
from service.core.why.waiting import for_claim, for_dependencies, stale_verdict
from streams.plan.lifecycle import ENDED
from streams.plan.state import Plan, Task
from streams.texts import shortened

MOST_CHARACTERS = 200  # of an error message in a sentence


def why_task(plan: Plan, task: Task, around: Surroundings) -> Why:
    """Why ``task`` does not run now."""
    reasons = reasons_of(plan, task, around)
    return Why(answer=f"Task '{task.spec.id}' {reasons[0].says}", reasons=reasons)


def reasons_of(plan: Plan, task: Task, around: Surroundings) -> list[Reason]:
    """Every reason that holds; never empty."""
    if task.status in ENDED:
        return [ended(plan, task)]
    unreadable = _unreadable(plan, task)
    if unreadable is not None:
        return [unreadable]
    gates = [each for each in (_failed(plan), _paused(plan)) if each is not None]
    match task.status:
        case "RUNNING":
            return of_lease(plan, task, around, gates)
        case "PENDING":
            return [*gates, *stale_verdict(plan, task), for_dependencies(plan, task)]
        case _:
            return [*gates, *for_claim(task, around, gated=bool(gates))]


def ended(plan: Plan, task: Task) -> Reason:
    """How ``task`` ended."""
    evidence: dict[str, Any] = {
        "status": task.status,
        "ended_at": moment(task.updated_at),
        "attempts": task.attempt,
        "sequences": [task.settled_sequence],
    }
    says, after = f"has ended as {task.status}.", "nothing: its result stands"
    if task.status == "FAILED" and task.error is not None:
        error_type, message = task.error
        evidence |= {"error_type": error_type, "error_message": message, "retries": task.retry}
        attempts = "one attempt" if task.attempt == 1 else f"{task.attempt} attempts"
        shown = shortened(message, MOST_CHARACTERS)
        says = f"has FAILED after {attempts}: {error_type}: {shown}"
        after = "an operator may retry it"
    elif task.status == "SKIPPED":
        culprits = _culprits(plan, task)
        evidence["because_of"] = [glance(each) for each in culprits]
        evidence["sequences"] += [each.settled_sequence for each in culprits]
        names = ", ".join(f"'{each.spec.id}' is {each.status}" for each in culprits)
        says = f"was SKIPPED: {names or 'the plan failed'}."
        after = "retrying the failed task brings it back"
    elif task.status == "CANCELLED":
        evidence["sequences"] = [plan.subject_sequence]
        says, after = "was CANCELLED with its plan.", "nothing: a cancelled plan stays so"
    return Reason(code="ended", says=says, evidence=evidence, next=after)


def _culprits(plan: Plan, task: Task) -> list[Task]:
    """What a skipped task waited for and did not get, else what failed the plan."""
    waited_for = (plan.tasks[name] for name in task.spec.depends_on)
    lost = [each for each in waited_for if each.status in ENDED and each.status != "COMPLETED"]
    return lost[:MOST_EXAMPLES] or fatal(plan)


def fatal(plan: Plan) -> list[Task]:
    """The first tasks whose failure failed the plan."""
    found: list[Task] = []
    for task in plan.tasks.values() if plan.fatal else ():
        if task.status == "FAILED" and task.spec.on_failure == "fail_plan":
            found.append(task)
            if len(found) == MOST_EXAMPLES:
                break
    return found


def _failed(plan: Plan) -> Reason | None:
    if not plan.fatal:
        return None
    causes = fatal(plan)
    return Reason(
        code="plan_failed",
        says=f"belongs to a plan that has FAILED, because '{causes[0].spec.id}' failed.",
        evidence={
            "failed": [glance(each) for each in causes],
            "sequences": [each.settled_sequence for each in causes],
        },
        next="retrying the plan gives its FAILED tasks fresh budgets",
    )


def _paused(plan: Plan) -> Reason | None:
    if not plan.paused or plan.fatal or plan.cancelled:
        return None
    return Reason(
        code="plan_paused",
        says="is not handed out, because its plan is PAUSED.",
        evidence={"plan_id": plan.plan_id, "sequences": [plan.subject_sequence]},
        next="an operator resumes the plan",
    )


def _unreadable(plan: Plan, task: Task) -> Reason | None:
    at = plan.unreadable_at if plan.unreadable_at is not None else task.unreadable_at
    if at is None:
        return None
    return Reason(
        code="unreadable_fact",
        says=f"cannot go on: this version cannot read the fact at sequence {at} of the log.",
        evidence={"sequences": [at]},
        next="upgrade to the version that wrote it, or remove the message if it was published by "
        "hand",
    )
