"""What must hold of any folded plan, computed the slow and obvious way; tests compare.

The fold keeps tallies so that a fact costs the same in a small and a large plan; these laws look
at every task and every dependency instead.
"""

from collections import Counter
from typing import Any

from streams.plan.lifecycle import ENDED, TASK_STATUSES
from streams.plan.sizes import plan_bytes
from streams.plan.state import Plan, Task


def check_plan(plan: Plan) -> None:
    """Every law at once."""
    counts = Counter(task.status for task in plan.tasks.values())
    assert plan.counts == {status: counts[status] for status in TASK_STATUSES}
    failures = [task for task in plan.tasks.values() if is_failure(task)]
    of_this_run = [task for task in failures if task.settled_sequence > plan.run_sequence]
    assert plan.fatal == len(of_this_run)
    assert plan.failed_before == len(failures) - len(of_this_run)
    assert plan.bytes == plan_bytes(plan)
    if failures and not plan.unfinished and not plan.cancelled:
        assert plan.status == "FAILED", "a retry of some tasks does not excuse the others"
    fatal = bool(of_this_run)
    for task in plan.tasks.values():
        _check_tallies(plan, task)
        _check_lease(task)
        _check_waiting(plan, task, fatal=fatal)
        assert task.retry <= task.spec.max_retries
        assert task.lost <= task.spec.max_lost_leases
    if plan.finished_at is not None:
        assert counts["RUNNING"] == 0
        assert plan.status in ("COMPLETED", "FAILED", "CANCELLED")


def is_failure(task: Task) -> bool:
    return task.status == "FAILED" and task.spec.on_failure == "fail_plan"


def _done(task: Task) -> bool:
    without = task.status in ("FAILED", "SKIPPED") and task.spec.on_failure == "continue"
    return task.status == "COMPLETED" or without


def _dependencies(plan: Plan, task: Task) -> list[Task]:
    return [plan.tasks[dependency] for dependency in task.spec.depends_on]


def _check_tallies(plan: Plan, task: Task) -> None:
    waits_for = _dependencies(plan, task)
    assert task.completed == sum(other.status == "COMPLETED" for other in waits_for)
    assert task.done == sum(map(_done, waits_for))
    assert task.ended == sum(other.status in ENDED for other in waits_for)
    assert task.needs_bytes == sum(
        other.output_bytes for other in waits_for if other.status == "COMPLETED"
    )
    assert task.wanted == sum(other.status not in ENDED for other in task.dependents)


def _check_lease(task: Task) -> None:
    running = task.status == "RUNNING"
    assert (task.owner is not None) is running
    assert (task.lease_until is not None) is running
    assert (task.claimable_at is not None) is (task.status in ("READY", "REFINING"))
    if running:
        assert task.execution is not None
        assert (task.execution.attempt, task.execution.owner) == (task.attempt, task.owner)
        assert task.execution.status == "running"


def satisfied(plan: Plan, task: Task) -> bool:
    """Whether a task may run, by DESIGN §4 *Dependencies* word for word."""
    waits_for = _dependencies(plan, task)
    if not waits_for:
        return True
    completed = sum(other.status == "COMPLETED" for other in waits_for)
    if task.spec.join == "all":
        may = all(map(_done, waits_for))
    else:
        may = completed >= (1 if task.spec.join == "any" else task.spec.quorum or 0)
    target = task.spec.target
    return may and (target is None or plan.tasks[target].status in ENDED)


def hopeless(plan: Plan, task: Task) -> bool:
    """Whether a task can never run as things stand."""
    waits_for = _dependencies(plan, task)
    ended = [other for other in waits_for if other.status in ENDED]
    open_ = len(waits_for) - len(ended)
    completed = sum(other.status == "COMPLETED" for other in waits_for)
    match task.spec.join:
        case "all":
            return any(not _done(other) for other in ended)
        case "any":
            return bool(waits_for) and not open_ and not completed
        case "quorum":
            return completed + open_ < (task.spec.quorum or 0)


def _check_waiting(plan: Plan, task: Task, *, fatal: bool) -> None:
    name = task.spec.id
    match task.status:
        case "PENDING":
            assert not satisfied(plan, task), f"{name} waits for nothing"
            assert not hopeless(plan, task), f"{name} waits for ever"
        case "READY":
            assert satisfied(plan, task), f"{name} is handed out before its dependencies are done"
        case "SKIPPED":
            assert fatal or hopeless(plan, task), f"{name} was skipped for no reason"
        case _:
            pass
    if task.status in ("PENDING", "READY", "REFINING"):
        assert not fatal, f"{name} goes on in a failed plan"
        assert not plan.cancelled, f"{name} goes on in a cancelled plan"


def portrait(plan: Plan) -> dict[str, Any]:
    """Everything folded about a plan, field by field, in a shape that can be compared."""
    skipped = {
        "tasks",
        "touched",
        "renewed",
        "closed",
        "outputs",
        "kept",
        "outdated",
        "latest",
        "spec",
    }
    shown = {name: getattr(plan, name) for name in plan.__struct_fields__ if name not in skipped}
    shown["tasks"] = {task_id: _task_portrait(task) for task_id, task in plan.tasks.items()}
    return shown


def _task_portrait(task: Task) -> dict[str, Any]:
    links = {"dependents", "critics", "held", "checkpoints"}
    shown = {name: getattr(task, name) for name in task.__struct_fields__ if name not in links}
    if task.status != "RUNNING":
        del shown["lease_s"]  # a heartbeat published by hand may set it, and leaves the log later
    shown["dependents"] = [other.spec.id for other in task.dependents]
    shown["checkpoints"] = {
        key: (each.attempt, each.sequence, each.size, each.digest)
        for key, each in (task.checkpoints or {}).items()
    }
    shown["critics"] = [other.spec.id for other in task.critics or ()]
    return shown
