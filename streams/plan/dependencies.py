"""What a task waits for: the shape of a plan's graph, and when a join is satisfied or hopeless."""

from collections import Counter
from graphlib import CycleError, TopologicalSorter
from typing import Literal

import msgspec
from msgspec.structs import replace

from streams.plan.events import FailureRule, Submitted, TaskSpec

Judgement = Literal["PENDING", "READY", "SKIPPED"]


class DependencyOutcome(msgspec.Struct, frozen=True, gc=False):
    """What one dependency means to the tasks that wait for it, as 0 or 1 each.

    ``completed``: it has an output. ``done``: they may go on (perhaps without it).
    ``ended``: nothing more will come of it unless it is reopened.
    """

    completed: int
    done: int
    ended: int


_WAITING = DependencyOutcome(0, 0, 0)
_COMPLETED = DependencyOutcome(1, 1, 1)
_DONE_WITHOUT = DependencyOutcome(0, 1, 1)
_LOST = DependencyOutcome(0, 0, 1)


def outcome(status: str, on_failure: FailureRule) -> DependencyOutcome:
    """Classify a dependency's status under its own ``on_failure`` (DESIGN §4, *Dependencies*)."""
    match status:
        case "COMPLETED":
            return _COMPLETED
        case "FAILED" | "SKIPPED":
            return _DONE_WITHOUT if on_failure == "continue" else _LOST
        case "CANCELLED":
            return _LOST
        case _:
            return _WAITING


def judge(spec: TaskSpec, completed: int, done: int, ended: int) -> Judgement:
    """Say where a waiting task stands, from how many of its dependencies are in which outcome."""
    total = len(spec.depends_on)
    if total == 0:
        return "READY"
    match spec.join:
        case "all":
            satisfied, hopeless = done == total, ended > done
        case "any":
            satisfied, hopeless = completed > 0, ended == total
        case "quorum":
            needed = spec.quorum or total
            satisfied, hopeless = completed >= needed, completed + total - ended < needed
    if satisfied:
        return "READY"
    return "SKIPPED" if hopeless else "PENDING"


def settle(plan: Submitted) -> Submitted:
    """Make implicit critic targets explicit: a critic names its target and depends on it."""
    tasks = [_settle_critic(task) if task.type == "critic" else task for task in plan.tasks]
    return replace(plan, tasks=tuple(tasks))


def _settle_critic(task: TaskSpec) -> TaskSpec:
    target = task.target
    if target is None and len(task.depends_on) == 1:
        target = task.depends_on[0]
    if target is None or (target == task.target and target in task.depends_on):
        return task
    waits_for = task.depends_on if target in task.depends_on else (*task.depends_on, target)
    return replace(task, target=target, depends_on=waits_for)


def complaint(tasks: tuple[TaskSpec, ...]) -> str | None:
    """The first thing wrong with a settled plan's graph, naming the culprit; None if sound."""
    if not tasks:
        return "tasks: a plan needs at least one task"
    known = {task.id: task for task in tasks}
    if len(known) < len(tasks):
        counts = Counter(task.id for task in tasks)
        repeated = next(task_id for task_id, n in counts.items() if n > 1)
        return f"tasks: the id '{repeated}' is used more than once"
    for task in tasks:
        if wrong := _complaint_about(task, known):
            return wrong
    return _cycle(tasks)


def _complaint_about(task: TaskSpec, known: dict[str, TaskSpec]) -> str | None:
    here = f"task '{task.id}'"
    for dependency in task.depends_on:
        if dependency not in known:
            return f"{here}: depends_on names '{dependency}', which is not a task of this plan"
    if len(set(task.depends_on)) < len(task.depends_on):
        return f"{here}: depends_on names a task twice"
    if task.join == "quorum" and not 1 <= (task.quorum or 0) <= len(task.depends_on):
        return (
            f"{here}: quorum must be between 1 and its {len(task.depends_on)} dependencies, "
            f"not {task.quorum}"
        )
    if task.join != "quorum" and task.quorum is not None:
        return f"{here}: quorum is only for join 'quorum', not for join '{task.join}'"
    return _complaint_about_target(task, here, known)


def _complaint_about_target(task: TaskSpec, here: str, known: dict[str, TaskSpec]) -> str | None:
    if task.type == "worker":
        return f"{here}: target is only for critics" if task.target is not None else None
    if task.target is None:
        return f"{here}: a critic must name its target or have exactly one dependency"
    if task.target not in known:
        return f"{here}: target names '{task.target}', which is not a task of this plan"
    return None


def _cycle(tasks: tuple[TaskSpec, ...]) -> str | None:
    try:
        graph = {task.id: task.depends_on for task in tasks if task.depends_on}
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return "tasks: the dependencies form a cycle: " + " → ".join(reversed(circle))
    return None
