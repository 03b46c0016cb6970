"""Why a plan does not move: its unfinished tasks grouped, each group with its reasons."""

from typing import Any

from msgspec.structs import replace

from projections.read_models.views import moment
from service.core.why.reasons import MOST_EXAMPLES, Code, Reason, Surroundings, Why
from service.core.why.tasks import ended, fatal, reasons_of
from streams.plan.lifecycle import ENDED
from streams.plan.state import Plan, Task

MOST_GROUPS = 20  # groups that are explained; a plan has at most this many reasons and its own
_ORDER: tuple[str, ...] = ("RUNNING", "READY", "REFINING", "PENDING")

Group = tuple[str, str, bool]
"""Tasks that are likely to wait for the same reason: status, kind, and whether they are delayed."""


def why_plan(plan: Plan, around: Surroundings) -> Why:
    """Why ``plan`` does not move on now; each reason counts its tasks and names examples."""
    if not plan.unfinished or plan.finished_at is not None:
        return _why_ended(plan)
    groups = _groups(plan, around.now)
    ordered = sorted(groups, key=lambda group: (_ORDER.index(group[0]), -len(groups[group])))
    reasons: dict[Code, Reason] = {}
    for group in ordered[:MOST_GROUPS]:
        for reason in reasons_of(plan, groups[group][0], around):
            _add(reasons, reason, groups[group])
    ranked = sorted(reasons.values(), key=lambda reason: _rank(reason.code))
    return Why(answer=_sentence(plan, ranked), reasons=ranked)


def _groups(plan: Plan, now: float) -> dict[Group, list[Task]]:
    groups: dict[Group, list[Task]] = {}
    for task in plan.tasks.values():
        if task.status in ENDED:
            continue
        if task.status == "RUNNING":
            apart = (task.lease_until or 0) <= now
        elif task.status == "PENDING":
            apart = task.execution is not None
        else:
            apart = (task.claimable_at or 0) > now
        groups.setdefault((task.status, task.spec.kind, apart), []).append(task)
    return groups


def _add(reasons: dict[Code, Reason], reason: Reason, tasks: list[Task]) -> None:
    known = reasons.get(reason.code)
    if known is None:
        evidence: dict[str, Any] = {**reason.evidence, "tasks": 0, "examples": list[str]()}
        known = reasons[reason.code] = replace(reason, evidence=evidence)
    known.evidence["tasks"] += len(tasks)
    room = MOST_EXAMPLES - len(known.evidence["examples"])
    known.evidence["examples"] += [task.spec.id for task in tasks[:room]]


_STRONGEST: tuple[Code, ...] = (
    "unreadable_fact",
    "plan_failed",
    "plan_paused",
    "no_worker",
    "lease_expired_unclaimed",
    "retry_delay",
    "delay",
    "workers_busy",
    "lane_behind",
    "lease_held",
    "next_in_lane",
    "reserved",
    "verdict_stale",
    "join_waits",
    "dependency_pending",
    "ended",
)
"""What an operator has to know first."""


def _rank(code: Code) -> int:
    return _STRONGEST.index(code)


def _sentence(plan: Plan, reasons: list[Reason]) -> str:
    first = reasons[0]
    counts = ", ".join(f"{count} {status}" for status, count in plan.counts.items() if count)
    example = first.evidence["examples"][0]
    return f"Plan '{plan.plan_id}' is {plan.status} ({counts}): task '{example}' {first.says}"


def _why_ended(plan: Plan) -> Why:
    status = plan.status
    causes = fatal(plan) if status == "FAILED" else []
    at = plan.finished_at
    reason = Reason(
        code="ended",
        says=f"has ended as {status}.",
        evidence={
            "status": status,
            "finished_at": None if at is None else moment(at),
            "failed": [ended(plan, task).evidence | {"task_id": task.spec.id} for task in causes],
            "sequences": [plan.subject_sequence, *(task.settled_sequence for task in causes)],
        },
        next="retrying it gives its FAILED tasks fresh budgets" if causes else "nothing",
    )
    because = f" because '{causes[0].spec.id}' failed" if causes else ""
    return Why(answer=f"Plan '{plan.plan_id}' has ended as {status}{because}.", reasons=[reason])
