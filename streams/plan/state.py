"""The plan as folded from its facts, the table of what may change into what, and `evolve`.

Theory first. Every change of a task's status goes through one door, `_Fold.move`, and the door
only opens for rows of TRANSITIONS; the drawing in ARCHITECTURE.md is generated from that table.
A fact that no row allows, or whose owner and attempt do not hold the lease, is *ignored*: the
fold answers with the reason, changes nothing but the subject's last sequence, and whoever folds
counts it. So a fact that someone published by hand cannot corrupt a plan.

Statuses that follow from other facts (READY, SKIPPED, a reopened target) are derived here, never
stored. To keep the cost of one fact independent of the size of its plan, each task counts its
dependencies' outcomes instead of looking at them, and the plan counts its tasks per status; the
fold therefore changes the plan in place and says in ``Plan.touched`` which tasks it changed.
"""

from collections.abc import Iterable
from typing import Literal, assert_never

import msgspec
from msgspec import Raw

from streams.plan import dependencies
from streams.plan.events import (
    NOTHING,
    Cancelled,
    Claimed,
    Completed,
    Event,
    Failed,
    Finished,
    Heartbeat,
    Paused,
    Progress,
    Released,
    Resumed,
    Retried,
    Started,
    Submitted,
    TaskSpec,
    TokenUsage,
)

TaskStatus = Literal[
    "PENDING", "READY", "RUNNING", "REFINING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED"
]
PlanStatus = Literal["READY", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED"]
ExecutionStatus = Literal["running", "completed", "failed", "released", "cancelled", "lost"]
Result = Completed | Failed | Released

TASK_STATUSES: tuple[TaskStatus, ...] = (
    "PENDING", "READY", "RUNNING", "REFINING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED",
)  # fmt: skip
ENDED: frozenset[TaskStatus] = frozenset({"COMPLETED", "FAILED", "SKIPPED", "CANCELLED"})
CLAIMABLE: frozenset[TaskStatus] = frozenset({"READY", "REFINING"})

LEASE_EXPIRED = "lease_expired"
REJECTED = "rejected"
TIMEOUT = "timeout"

ORDINALS_PER_PLAN = 2**20  # far more than a plan may have tasks, so ordinals never overlap


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
_ROWS: dict[tuple[TaskStatus, str], TaskStatus] = {(row.source, row.trigger): row.target for row in TRANSITIONS}


class Execution(msgspec.Struct, kw_only=True, gc=False):
    """What became of one attempt; times are log times in seconds since the epoch."""

    attempt: int
    owner: str
    claimed_at: float
    claimed_sequence: int
    sequence: int
    status: ExecutionStatus = "running"
    started_at: float | None = None
    finished_at: float | None = None
    model_name: str | None = None
    token_usage: TokenUsage | None = None
    error_type: str | None = None
    error_message: str | None = None


class Task(msgspec.Struct, kw_only=True):
    """A task as folded so far.

    ``subject_sequence`` is that of the last message on its own subject (the expectation of the
    next append); ``sequence`` and ``updated_at`` belong to the last fact that changed it, be it
    its own or another's. ``settled_sequence`` says when it last ended or was reopened.
    ``result`` is the last accepted end of an attempt: repeating it is a duplicate.
    ``completed``, ``done`` and ``ended`` count its dependencies by outcome. ``ordinal`` is its
    place among all tasks ever submitted: by plan, then by position in it.
    """

    spec: TaskSpec
    ordinal: int = 0
    status: TaskStatus = "PENDING"
    attempt: int = 0
    retry: int = 0
    lost: int = 0
    timeouts: int = 0
    owner: str | None = None
    lease_s: float = 0
    lease_until: float | None = None
    claimable_at: float | None = None
    claimed_sequence: int = 0
    settled_sequence: int = 0
    subject_sequence: int = 0
    sequence: int = 0
    updated_at: float = 0
    feedback: Raw = NOTHING
    result: Result | None = None
    execution: Execution | None = None
    unreadable_at: int | None = None
    completed: int = 0
    done: int = 0
    ended: int = 0
    dependents: list["Task"] = msgspec.field(default_factory=list["Task"])
    critics: list["Task"] | None = None

    @property
    def output(self) -> Raw:
        """The accepted output; JSON null unless the task is COMPLETED."""
        if self.status == "COMPLETED" and isinstance(self.result, Completed):
            return self.result.output
        return NOTHING

    @property
    def error(self) -> tuple[str, str] | None:
        """Type and message of what last went wrong, while it still matters."""
        if isinstance(self.result, Failed):
            return self.result.error_type, self.result.error_message
        if self.status == "FAILED":
            return REJECTED, "a critic rejected the output and no retries are left"
        return None


class Plan(msgspec.Struct, kw_only=True):
    """A plan as folded so far; change it through `evolve` only.

    ``first_sequence`` is that of its ``submitted``. ``touched`` and ``closed`` collect the tasks
    that changed and the executions that a newer one replaced since somebody last drained
    them with `drain`; ``latest`` holds the tasks that the last fact touched.
    """

    plan_id: str
    spec: Submitted
    created_at: float
    first_sequence: int
    sequence: int
    subject_sequence: int
    tasks: dict[str, Task]
    counts: dict[TaskStatus, int]
    fatal: int = 0
    paused: bool = False
    cancelled: bool = False
    ever_claimed: bool = False
    finished_at: float | None = None
    unreadable_at: int | None = None
    latest: list[Task] = []
    touched: dict[str, Task] = {}
    closed: list[tuple[str, Execution]] = []

    @property
    def status(self) -> PlanStatus:
        """Derived from the tasks and the operators' words (DESIGN §4, *Plan*)."""
        if self.cancelled:
            return "CANCELLED"
        if self.fatal:
            return "FAILED"
        if not self.unfinished:
            return "COMPLETED"
        if self.paused:
            return "PAUSED"
        return "RUNNING" if self.ever_claimed else "READY"

    @property
    def unfinished(self) -> int:
        """How many tasks have not ended."""
        counts = self.counts
        return counts["PENDING"] + counts["READY"] + counts["RUNNING"] + counts["REFINING"]

    @property
    def hands_out_tasks(self) -> bool:
        """Whether a claim may take a task of this plan now."""
        return not (self.paused or self.fatal or self.cancelled or self.finished_at is not None)

    @property
    def can_finish(self) -> bool:
        """Whether nothing runs any more and the plan's last fact is still missing."""
        if self.finished_at is not None or self.counts["RUNNING"]:
            return False
        return bool(self.cancelled or self.fatal or not self.unfinished)

    def drain(self) -> tuple[dict[str, Task], list[tuple[str, Execution]]]:
        """Hand over, once, what changed since the last call."""
        touched, self.touched = self.touched, {}
        closed, self.closed = self.closed, []
        return touched, closed


def begin(plan_id: str, event: Submitted, *, sequence: int, at: float) -> Plan:
    """The plan that a ``submitted`` fact starts.

    Raises KeyError, with the name, when a task names one that is not in the plan: `decide` lets no
    such plan into the log, but somebody may have published it by hand.
    """
    tasks = {
        spec.id: Task(spec=spec, ordinal=sequence * ORDINALS_PER_PLAN + position)
        for position, spec in enumerate(event.tasks)
    }
    plan = Plan(
        plan_id=plan_id,
        spec=event,
        created_at=at,
        first_sequence=sequence,
        sequence=sequence,
        subject_sequence=sequence,
        tasks=tasks,
        counts=dict.fromkeys(TASK_STATUSES, 0),
    )
    plan.counts["PENDING"] = len(tasks)
    connect(plan)
    fold = _Fold(plan, sequence, at)
    for task in tasks.values():
        fold.touch(task)
        fold.judge(task)
    fold.settle()
    return plan


def connect(plan: Plan) -> None:
    """Let every task know who waits for it and who judges it."""
    for task in plan.tasks.values():
        for dependency in task.spec.depends_on:
            plan.tasks[dependency].dependents.append(task)
        if task.spec.target is not None:
            target = plan.tasks[task.spec.target]
            target.critics = [*(target.critics or []), task]


def recount(plan: Plan) -> None:
    """Derive every counter from the tasks' statuses, after they were restored from a view."""
    plan.counts = dict.fromkeys(TASK_STATUSES, 0)
    plan.fatal = 0
    for task in plan.tasks.values():
        plan.counts[task.status] += 1
        plan.fatal += _is_fatal(task)
        outcome = dependencies.outcome(task.status, task.spec.on_failure)
        for dependent in task.dependents:
            dependent.completed += outcome.completed
            dependent.done += outcome.done
            dependent.ended += outcome.ended


def evolve(
    plan: Plan, task_id: str | None, event: Event, *, sequence: int, at: float
) -> str | None:
    """Fold one fact into ``plan``, in place; answers why it was ignored, or None.

    ``sequence`` is the fact's log sequence, ``at`` its log time (seconds since the epoch).
    """
    plan.latest = []
    fold = _Fold(plan, sequence, at)
    if task_id is None:
        plan.subject_sequence = sequence
        return fold.plan_fact(event)
    task = plan.tasks.get(task_id)
    if task is None:
        return f"the plan has no task '{task_id}'"
    task.subject_sequence = sequence
    plan.touched[task_id] = task  # even if ignored: the next expectation has changed
    return fold.task_fact(task, event)


def mark_unreadable(plan: Plan, task_id: str | None, *, sequence: int) -> None:
    """Remember that a fact nobody can read stands on this subject: no write may follow it."""
    if task_id is None:
        plan.subject_sequence = plan.unreadable_at = sequence
    elif task := plan.tasks.get(task_id):
        task.subject_sequence = task.unreadable_at = sequence
        plan.touched[task_id] = task


def _is_fatal(task: Task) -> bool:
    return task.status == "FAILED" and task.spec.on_failure == "fail_plan"


class _Fold:
    """One fact being folded: it moves tasks, then lets the consequences settle."""

    __slots__ = ("at", "plan", "sequence", "wave")

    def __init__(self, plan: Plan, sequence: int, at: float) -> None:
        self.plan = plan
        self.sequence = sequence
        self.at = at
        self.wave: list[tuple[Task, TaskStatus, TaskStatus]] = []

    # -- facts about the plan ---------------------------------------------------------------

    def plan_fact(self, event: Event) -> str | None:
        plan = self.plan
        match event:
            case Paused():
                if plan.status not in ("READY", "RUNNING"):
                    return f"paused while {plan.status}"
                plan.paused = True
            case Resumed():
                if plan.status != "PAUSED":
                    return f"resumed while {plan.status}"
                plan.paused = False
            case Cancelled():
                if plan.status in ("CANCELLED", "COMPLETED") or plan.finished_at is not None:
                    return f"cancelled while {plan.status}"
                self.cancel()
            case Retried():
                if reason := self.retry(event.task_id):
                    return reason
            case Finished():
                if not plan.can_finish or event.status != plan.status:
                    return f"finished as {event.status} while {plan.status}"
                plan.finished_at = self.at
            case Submitted():
                return "submitted a second time"
            case _:
                return "a task's fact on a plan's subject"
        plan.sequence = self.sequence
        self.settle()
        return None

    def cancel(self) -> None:
        self.plan.cancelled = True
        for task in self.plan.tasks.values():
            if task.status in ENDED:
                continue
            if task.status == "RUNNING":
                self.end_attempt(task, "cancelled")
            self.move(task, "plan cancelled")

    def retry(self, task_id: str) -> str | None:
        plan = self.plan
        task = plan.tasks.get(task_id)
        if task is None or task.status != "FAILED" or plan.cancelled:
            return f"retried '{task_id}', which is not FAILED in a plan that can go on"
        plan.finished_at = None
        task.retry = task.lost = task.timeouts = 0
        self.move(task, "retried")
        self.reopen_critics(task)
        for other in plan.tasks.values():
            if other.status == "SKIPPED":
                self.move(other, "plan retried")
        # Tallies first: a skipped task judged before its own skipped dependency has moved
        # would see it as ended and be skipped for ever.
        self.spread()
        for other in plan.tasks.values():
            self.judge(other)
        return None

    # -- facts about one attempt ------------------------------------------------------------

    def task_fact(self, task: Task, event: Event) -> str | None:
        match event:
            case Claimed():
                ignored = self.claimed(task, event)
            case Started() | Heartbeat() | Progress() | Completed() | Failed() | Released():
                if task.status != "RUNNING" or task.owner != event.owner:
                    return f"{event.owner} does not hold the lease ({task.status}, {task.owner})"
                if task.attempt != event.attempt:
                    return f"attempt {event.attempt} is over, {task.attempt} runs"
                self.owned(task, event)
                ignored = None
            case _:
                return "a plan's fact on a task's subject"
        if ignored is None:
            self.plan.sequence = self.sequence
            self.settle()
        return ignored

    def claimed(self, task: Task, event: Claimed) -> str | None:
        reclaim = task.status == "RUNNING"
        if task.status not in CLAIMABLE and not reclaim:
            return f"claimed while {task.status}"
        if not self.plan.hands_out_tasks:
            return f"claimed while the plan is {self.plan.status}"
        if reclaim and task.lost >= task.spec.max_lost_leases:
            return "reclaimed although no more leases may be lost"
        if event.attempt != task.attempt + 1:
            return f"claimed as attempt {event.attempt} after attempt {task.attempt}"
        if reclaim and task.lease_until is not None and self.at < task.lease_until:
            return "reclaimed before its lease expired"
        if reclaim:
            task.lost += 1
            if task.execution is not None:
                self.end_attempt(task, "lost")
        if task.execution is not None:  # of an earlier attempt, about to be forgotten here
            self.plan.closed.append((task.spec.id, task.execution))
        self.move(task, "reclaimed" if reclaim else "claimed")
        self.plan.ever_claimed = True
        task.attempt = event.attempt
        task.owner = event.owner
        task.lease_s = event.lease_s
        task.lease_until = self.at + event.lease_s
        task.claimable_at = None
        task.claimed_sequence = self.sequence
        task.execution = Execution(
            attempt=event.attempt,
            owner=event.owner,
            claimed_at=self.at,
            claimed_sequence=self.sequence,
            sequence=self.sequence,
        )
        return None

    def owned(
        self,
        task: Task,
        event: Started | Heartbeat | Progress | Completed | Failed | Released,
    ) -> None:
        self.touch(task)
        match event:
            case Started():
                if task.execution is not None and task.execution.started_at is None:
                    task.execution.started_at = self.at
                    task.execution.sequence = self.sequence
            case Heartbeat():
                task.lease_s = event.lease_s
                task.lease_until = self.at + event.lease_s
            case Progress():
                pass
            case Completed():
                self.end_attempt(task, "completed", event)
                self.completed(task, event)
            case Failed():
                self.end_attempt(task, "failed", event)
                self.failed(task, event)
                self.wait_again(task)
            case Released():
                self.end_attempt(task, "released", event)
                task.claimable_at = self.at
                self.move(task, "released after a retry" if task.retry else "released")
                self.wait_again(task)
            case _:
                assert_never(event)

    def failed(self, task: Task, event: Failed) -> None:
        if event.error_type == TIMEOUT:
            task.timeouts += 1
        if event.retry_in_s is None:
            self.move(task, "failed")
            return
        task.retry += 1
        task.claimable_at = self.at + event.retry_in_s
        self.move(task, "failed, will retry")

    def completed(self, task: Task, event: Completed) -> None:
        target = self.plan.tasks[task.spec.target] if task.spec.target is not None else None
        if target is None or event.verdict is None:
            self.move(task, "completed")
        elif target.status not in ENDED or target.settled_sequence > task.claimed_sequence:
            self.move(task, "completed, verdict stale")
            self.judge(task)
        elif target.status != "COMPLETED" or event.verdict.pass_:
            self.move(task, "completed")
        else:
            self.reject(task, target, event.verdict.feedback)

    def reject(self, critic: Task, target: Task, feedback: Raw) -> None:
        target.feedback = feedback
        if target.retry >= target.spec.max_retries:
            self.move(target, "rejected, retries spent")
            self.move(critic, "completed")
            return
        target.retry += 1
        target.claimable_at = self.at
        self.move(target, "rejected")
        self.move(critic, "target reopened")
        self.reopen_critics(target)

    def reopen_critics(self, target: Task) -> None:
        for critic in target.critics or ():
            if critic.status in ("READY", "REFINING", "COMPLETED"):
                self.move(critic, "target reopened")

    def end_attempt(
        self, task: Task, status: ExecutionStatus, result: Result | None = None
    ) -> None:
        task.owner = None
        task.lease_until = None
        execution = task.execution
        if result is not None:
            task.result = result
        if execution is None:
            return
        execution.status = status
        execution.finished_at = self.at
        execution.sequence = self.sequence
        if isinstance(result, Completed | Failed):
            execution.model_name = result.model_name
            execution.token_usage = result.token_usage
        if isinstance(result, Failed):
            execution.error_type = result.error_type
            execution.error_message = result.error_message

    # -- consequences -----------------------------------------------------------------------

    def touch(self, task: Task) -> None:
        task.sequence = self.sequence
        task.updated_at = self.at
        self.plan.touched[task.spec.id] = task
        self.plan.latest.append(task)

    def move(self, task: Task, trigger: str) -> None:
        """The one door: change a status by a row of TRANSITIONS (KeyError: there is none)."""
        before = task.status
        after = _ROWS[before, trigger]
        self.touch(task)
        if before == after:
            return
        counts = self.plan.counts
        counts[before] -= 1
        counts[after] += 1
        self.plan.fatal -= _is_fatal(task)
        task.status = after
        self.plan.fatal += _is_fatal(task)
        if after in ENDED or before in ENDED:
            task.settled_sequence = self.sequence
            self.wave.append((task, before, after))
        if after in ENDED or after == "PENDING":
            task.claimable_at = None
        elif after == "READY":
            task.claimable_at = self.at

    def judge(self, task: Task) -> None:
        """Derive where a waiting task stands now."""
        if task.status not in ("PENDING", "READY"):
            return
        verdict = dependencies.judge(task.spec, task.completed, task.done, task.ended)
        if verdict == "READY" and self.waits_for_target(task):
            verdict = "PENDING"
        if verdict == task.status:
            return
        match verdict:
            case "READY":
                self.move(task, "dependencies satisfied")
            case "PENDING":
                self.move(task, "dependency reopened")
            case "SKIPPED":
                self.move(task, "dependencies unsatisfiable")

    def wait_again(self, task: Task) -> None:
        """What was reopened while an attempt ran is waited for by the next one."""
        if task.status in CLAIMABLE and self.waits_for_target(task):
            self.move(task, "target reopened")
        else:
            self.judge(task)

    def waits_for_target(self, task: Task) -> bool:
        target = task.spec.target
        return target is not None and self.plan.tasks[target].status not in ENDED

    def spread(self) -> list[Task]:
        """Carry ended and reopened tasks into their dependents' tallies; answers these."""
        reached: list[Task] = []
        for task, before, after in self.wave:
            rule = task.spec.on_failure
            old = dependencies.outcome(before, rule)
            new = dependencies.outcome(after, rule)
            for dependent in task.dependents:
                dependent.completed += new.completed - old.completed
                dependent.done += new.done - old.done
                dependent.ended += new.ended - old.ended
            reached += task.dependents
        self.wave = []
        return reached

    def settle(self) -> None:
        """Let ended and reopened tasks change what waits for them, until nothing moves."""
        while self.wave:
            for dependent in self.spread():
                self.judge(dependent)
        if self.plan.fatal and not self.plan.cancelled:
            self.skip_the_rest()

    def skip_the_rest(self) -> None:
        counts = self.plan.counts
        if not counts["PENDING"] + counts["READY"] + counts["REFINING"]:
            return
        for task in self.plan.tasks.values():
            if task.status in ("PENDING", "READY", "REFINING"):
                self.move(task, "plan failed")
        self.spread()
