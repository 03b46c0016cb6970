"""A plan as folded from its facts so far: what is known of it, its tasks and their attempts.

Statuses that follow from other facts are derived (`streams.plan.cascade`), never stored. To keep
the cost of one fact independent of the size of its plan, each task counts its dependencies'
outcomes instead of looking at them, and the plan counts its tasks per status; the fold therefore
changes the plan in place and says in ``Plan.touched`` which tasks it changed.
"""

from typing import NamedTuple

import msgspec
from msgspec import Raw

from streams.plan import dependencies
from streams.plan.events import (
    NOTHING,
    Completed,
    Failed,
    Released,
    Submitted,
    TaskSpec,
    TokenUsage,
)
from streams.plan.lifecycle import ENDED, TASK_STATUSES, ExecutionStatus, PlanStatus, TaskStatus
from streams.plan.limits import MAX_SILENT

Result = Completed | Failed | Released

LEASE_EXPIRED = "lease_expired"
REJECTED = "rejected"
TIMEOUT = "timeout"

ORDINALS_PER_PLAN = 2**20  # far more than a plan may have tasks, so ordinals never overlap


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


class Checkpoint(msgspec.Struct, kw_only=True, gc=False):
    """A value that an attempt kept for later ones; it stands in the fact at ``sequence``.

    ``digest`` stands for the value and the tokens that came with it; ``held`` is the value while
    it is in memory, and ``size`` its bytes.
    """

    attempt: int
    sequence: int
    size: int
    digest: bytes
    held: Raw | None = None


class Task(msgspec.Struct, kw_only=True):
    """A task as folded so far.

    ``subject_sequence`` is that of the last message on its own subject (the expectation of the
    next append); ``sequence`` and ``updated_at`` belong to the last fact that changed it, be it
    its own or another's. ``settled_sequence`` is where it last ended or was reopened.
    ``result`` is the last accepted end of an attempt: repeating it is a duplicate.
    ``completed``, ``done`` and ``ended`` count its dependencies by outcome, ``needs_bytes`` adds up
    the outputs of the COMPLETED ones, and ``wanted`` counts the unfinished tasks that depend on it.
    A large result is kept without its content (`streams.plan.outputs`): ``digest`` stands for it,
    ``output_bytes`` is the output's size and ``held`` the output while it is in memory.
    ``releases`` counts how often in a row it was given back. ``reported``: the owner of the running
    attempt has said something since its claim; ``silent`` counts the attempts that were taken over
    without that. ``timeout_s`` is how long the running attempt may take, where this is enforced.
    ``checkpoints`` are kept until it is COMPLETED or CANCELLED; None: there are none.
    ``ordinal`` is its place among all
    tasks ever submitted: by plan, then by position in it.
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
    digest: bytes | None = None
    output_bytes: int = 0
    held: Raw | None = None
    releases: int = 0
    reported: bool = False
    silent: int = 0
    timeout_s: float | None = None
    checkpoints: dict[str, Checkpoint] | None = None
    execution: Execution | None = None
    unreadable_at: int | None = None
    completed: int = 0
    done: int = 0
    ended: int = 0
    needs_bytes: int = 0
    wanted: int = 0
    dependents: list["Task"] = msgspec.field(default_factory=list["Task"])
    critics: list["Task"] | None = None

    @property
    def spared(self) -> bool:
        """Whether taking its lease over costs nothing: the owner never reported."""
        return not self.reported and self.silent < MAX_SILENT

    @property
    def leases_spent(self) -> bool:
        """Whether no owner may take its lease over any more."""
        return self.lost >= self.spec.max_lost_leases and not self.spared

    @property
    def overdue_at(self) -> float | None:
        """When the running attempt has outlived its time-out by one lease (log time)."""
        if self.timeout_s is None or (began := self.began_at) is None:
            return None
        return began + self.timeout_s + self.lease_s

    @property
    def began_at(self) -> float | None:
        """When the running attempt was started, or claimed while it is not (log time)."""
        if self.execution is None or self.status != "RUNNING":
            return None
        return self.execution.started_at or self.execution.claimed_at

    @property
    def error(self) -> tuple[str, str] | None:
        """Type and message of what last went wrong, while it still matters.

        It no longer does for a SKIPPED task: the failed plan ended it, not its own last attempt.
        """
        if self.status == "SKIPPED":
            return None
        if isinstance(self.result, Failed):
            return self.result.error_type, self.result.error_message
        if self.status == "FAILED":
            return REJECTED, "a critic rejected the output and no retries are left"
        return None


KeptCheckpoint = tuple[int, str, Checkpoint | None, Raw]
"""A checkpoint that was kept, or None where one was dropped: the task's ordinal, key and value."""


class Plan(msgspec.Struct, kw_only=True):
    """A plan as folded so far; change it through `evolve` only.

    ``bytes`` is what it takes in memory (`streams.plan.sizes`).
    ``first_sequence`` is that of its ``submitted``, ``traceparent`` and ``tracestate`` the trace it
    was submitted with ("": none; no rule looks at it). ``run_sequence`` is that of the last retry:
    tasks that had FAILED before it, ``failed_before``, no longer stop the plan, which in the end is
    FAILED.
    ``touched``, ``renewed``, ``closed``, ``outputs`` and ``kept`` collect the tasks that changed,
    those of which no more than the lease and the position did, the executions that a newer one
    replaced, large outputs (sequence, ordinal of the task, output) and checkpoints since the last
    `drain`; ``latest`` holds the tasks that the last fact touched, and ``outdated`` the checkpoints
    that it replaced or dropped.
    """

    plan_id: str
    spec: Submitted
    created_at: float
    first_sequence: int
    traceparent: str = ""
    tracestate: str = ""
    sequence: int
    subject_sequence: int
    tasks: dict[str, Task]
    counts: dict[TaskStatus, int]
    bytes: int = 0
    fatal: int = 0
    failed_before: int = 0
    run_sequence: int = 0
    paused: bool = False
    cancelled: bool = False
    ever_claimed: bool = False
    finished_at: float | None = None
    unreadable_at: int | None = None
    latest: list[Task] = []
    touched: dict[str, Task] = {}
    renewed: dict[str, Task] = {}
    closed: list[tuple[str, Execution]] = []
    outputs: list[tuple[int, int, Raw]] = []
    kept: list[KeptCheckpoint] = []
    outdated: list[Checkpoint] = []

    @property
    def status(self) -> PlanStatus:
        """Derived from the tasks and the operators' commands (DESIGN §4, *Plan*)."""
        if self.cancelled:
            return "CANCELLED"
        if self.fatal:
            return "FAILED"
        if not self.unfinished:
            return "FAILED" if self.failed_before else "COMPLETED"
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

    def drain(self) -> "Drained":
        """Hand over, once, what changed since the last call."""
        drained = Drained(self.touched, self.renewed, self.closed, self.outputs, self.kept)
        self.touched, self.renewed, self.closed, self.outputs, self.kept = {}, {}, [], [], []
        return drained


class Drained(NamedTuple):
    """What changed in a plan: see `Plan`."""

    touched: dict[str, Task]
    renewed: dict[str, Task]
    closed: list[tuple[str, Execution]]
    outputs: list[tuple[int, int, Raw]]
    kept: list[KeptCheckpoint]


def connect(plan: Plan) -> None:
    """Give every task the tasks that wait for it and those that judge it."""
    for task in plan.tasks.values():
        for dependency in task.spec.depends_on:
            plan.tasks[dependency].dependents.append(task)
            plan.tasks[dependency].wanted += 1
        if task.spec.target is not None:
            target = plan.tasks[task.spec.target]
            target.critics = [*(target.critics or []), task]


def recount(plan: Plan) -> None:
    """Derive every counter from the tasks' statuses, after they were restored from a view."""
    plan.counts = dict.fromkeys(TASK_STATUSES, 0)
    plan.fatal = plan.failed_before = 0
    for task in plan.tasks.values():
        plan.counts[task.status] += 1
        count_failure(plan, task, 1)
        outcome = dependencies.outcome(task.status, task.spec.on_failure)
        if task.status in ENDED:
            for dependency in task.spec.depends_on:
                plan.tasks[dependency].wanted -= 1
        for dependent in task.dependents:
            dependent.needs_bytes += outcome.completed * task.output_bytes
            dependent.completed += outcome.completed
            dependent.done += outcome.done
            dependent.ended += outcome.ended


def count_failure(plan: Plan, task: Task, change: int) -> None:
    """Add ``change`` to the failures of the plan's run, or of earlier runs, if the task is one."""
    if task.status != "FAILED" or task.spec.on_failure != "fail_plan":
        return
    if task.settled_sequence > plan.run_sequence:
        plan.fatal += change
    else:
        plan.failed_before += change
