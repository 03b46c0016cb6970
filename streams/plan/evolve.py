"""`evolve`: one fact folded into a plan; and `begin`, the fact that starts one.

A fact that the life cycle does not allow, or whose owner and attempt do not hold the lease, is
*ignored*: the fold returns the reason, changes only the subject's last sequence, and the caller
counts it. So a fact that was published by hand cannot corrupt a plan.
"""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from msgspec import Raw

from streams.plan import checkpoints
from streams.plan.cascade import Cascade
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
    Paused,
    Progress,
    Released,
    Resumed,
    Retried,
    Started,
    Submitted,
    TaskEvent,
)
from streams.plan.lifecycle import CLAIMABLE, ENDED, TASK_STATUSES, ExecutionStatus
from streams.plan.limits import MAX_SILENT
from streams.plan.outputs import keep_result
from streams.plan.results import added
from streams.plan.sizes import plan_bytes, result_bytes
from streams.plan.state import ORDINALS_PER_PLAN, TIMEOUT, Execution, Plan, Result, Task, connect

T = TypeVar("T")


def in_one_go(steps: Generator[None, None, T]) -> T:
    """All of ``steps`` in one go; their answer."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def begin(
    plan_id: str,
    event: Submitted,
    *,
    sequence: int,
    at: float,
    traceparent: str = "",
    tracestate: str = "",
) -> Plan:
    """The plan that a ``submitted`` fact starts; its trace is kept with it, unread.

    Raises KeyError, with the name, when a task names one that is not in the plan: `decide` lets no
    such plan into the log, but it may have been published by hand.
    """
    tasks = {
        spec.id: Task(
            spec=spec,
            ordinal=sequence * ORDINALS_PER_PLAN + position,
            sequence=sequence,
            updated_at=at,
        )
        for position, spec in enumerate(event.tasks)
    }
    plan = Plan(
        plan_id=plan_id,
        spec=event,
        created_at=at,
        first_sequence=sequence,
        traceparent=traceparent,
        tracestate=tracestate,
        sequence=sequence,
        subject_sequence=sequence,
        tasks=tasks,
        counts=dict.fromkeys(TASK_STATUSES, 0),
        latest=list(tasks.values()),
        touched=dict(tasks),
    )
    plan.counts["PENDING"] = len(tasks)
    plan.bytes = plan_bytes(plan)
    connect(plan)
    fold = _Fold(plan, sequence, at)
    for task in plan.latest:
        fold.judge(task)
    in_one_go(fold.settle())
    return plan


def evolve(
    plan: Plan, task_id: str | None, event: Event, *, sequence: int, at: float
) -> str | None:
    """Fold one fact into ``plan``, in place; answers why it was ignored, or None.

    ``sequence`` is the fact's log sequence, ``at`` its log time (seconds since the epoch).
    """
    return in_one_go(evolving(plan, task_id, event, sequence=sequence, at=at))


def evolving(
    plan: Plan, task_id: str | None, event: Event, *, sequence: int, at: float
) -> Generator[None, None, str | None]:
    """`evolve` in steps of one task each: others may run in between, but no other fold."""
    plan.latest, plan.outdated = [], []
    fold = _Fold(plan, sequence, at)
    if task_id is None:
        plan.subject_sequence = sequence
        ignored = yield from fold.plan_fact(event)
    elif (task := plan.tasks.get(task_id)) is None:
        return f"the plan has no task '{task_id}'"
    else:
        task.subject_sequence = sequence
        plan.renewed[task_id] = task  # even if ignored: the next expectation has changed
        ignored = fold.task_fact(task, event)
    if ignored is None:
        plan.sequence = sequence
        if fold.wave or plan.fatal:
            yield from fold.settle()
    return ignored


def mark_unreadable(plan: Plan, task_id: str | None, *, sequence: int) -> None:
    """Remember that an unreadable fact stands on this subject: no write may follow it."""
    if task_id is None:
        plan.subject_sequence = plan.unreadable_at = sequence
    elif task := plan.tasks.get(task_id):
        task.subject_sequence = task.unreadable_at = sequence
        plan.touched[task_id] = task


class _Fold(Cascade):
    """One fact being folded: it moves tasks, then lets the consequences settle."""

    # -- facts about the plan ---------------------------------------------------------------

    def plan_fact(self, event: Event) -> Generator[None, None, str | None]:
        match event:
            case Paused():
                return self.pause()
            case Resumed():
                return self.resume()
            case Cancelled():
                return (yield from self.cancel())
            case Retried():
                return (yield from self.retry(event))
            case Finished():
                return self.finish(event)
            case Submitted():
                return "submitted a second time"
            case Forgotten():
                return "a forgotten plan is not changed but dropped"  # see `streams.plan.fold`
            case _:
                return "a task's fact on a plan's subject"

    def pause(self) -> str | None:
        if self.plan.status not in ("READY", "RUNNING"):
            return f"paused while {self.plan.status}"
        self.plan.paused = True
        return None

    def resume(self) -> str | None:
        if self.plan.status != "PAUSED":
            return f"resumed while {self.plan.status}"
        self.plan.paused = False
        return None

    def finish(self, event: Finished) -> str | None:
        if not self.plan.can_finish or event.status != self.plan.status:
            return f"finished as {event.status} while {self.plan.status}"
        self.plan.finished_at = self.at
        return None

    def cancel(self) -> Generator[None, None, str | None]:
        if self.plan.status in ("CANCELLED", "COMPLETED") or self.plan.finished_at is not None:
            return f"cancelled while {self.plan.status}"
        self.plan.cancelled = True
        for task in self.plan.tasks.values():
            if task.status in ENDED:
                continue
            if task.status == "RUNNING":
                self.end_attempt(task, "cancelled")
            checkpoints.drop(self.plan, task)
            self.move(task, "plan cancelled")
            yield
        return None

    def retry(self, event: Retried) -> Generator[None, None, str | None]:
        plan = self.plan
        names = (event.task_id, *(event.also or ()))
        tasks = {name: task for name in names if (task := plan.tasks.get(name)) is not None}
        for name in names:
            if name not in tasks or tasks[name].status != "FAILED" or plan.cancelled:
                return f"retried '{name}', which is not FAILED in a plan that can go on"
        plan.finished_at = None
        if event.also is not None:  # what stays FAILED belongs to the run that is over
            plan.run_sequence = self.sequence
            plan.failed_before, plan.fatal = plan.failed_before + plan.fatal, 0
        for task in tasks.values():
            task.retry = task.lost = task.timeouts = task.releases = task.silent = 0
            if event.fresh:
                checkpoints.drop(plan, task)
            self.move(task, "retried")
            self.reopen_critics(task)
            yield
        for other in plan.tasks.values():
            if other.status == "SKIPPED":
                self.move(other, "plan retried")
                yield
        # Tallies first: a skipped task judged before its own skipped dependency has moved
        # would see it as ended and be skipped for ever.
        yield from self.spread()
        for other in plan.tasks.values():
            self.judge(other)
            yield
        return None

    # -- facts about one attempt ------------------------------------------------------------

    def task_fact(self, task: Task, event: Event) -> str | None:
        if type(event) is Claimed:
            return self.claimed(task, event)
        if not isinstance(event, TaskEvent):
            return "a plan's fact on a task's subject"
        if task.status != "RUNNING" or task.owner != event.owner:
            return f"{event.owner} does not hold the lease ({task.status}, {task.owner})"
        if task.attempt != event.attempt:
            return f"attempt {event.attempt} is over, {task.attempt} runs"
        if type(event) is Checkpointed and (
            excess := checkpoints.over_limit(task, event.key, len(event.value))
        ):
            return excess
        task.reported = True
        _OWNED[type(event)](self, task, event)
        return None

    def claimed(self, task: Task, event: Claimed) -> str | None:
        reclaim = task.status == "RUNNING"
        if task.status not in CLAIMABLE and not reclaim:
            return f"claimed while {task.status}"
        if not self.plan.hands_out_tasks:
            return f"claimed while the plan is {self.plan.status}"
        free = event.silent and task.silent < MAX_SILENT
        if reclaim and not free and task.lost >= task.spec.max_lost_leases:
            return "reclaimed although no more leases may be lost"
        if event.attempt != task.attempt + 1:
            return f"claimed as attempt {event.attempt} after attempt {task.attempt}"
        if reclaim and task.lease_until is not None and self.at < task.lease_until:
            return "reclaimed before its lease expired"
        if event.previous_owner != task.owner:
            return f"claimed from {event.previous_owner}, while {task.owner} holds the lease"
        if reclaim:
            task.silent += free
            task.lost += not free
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
        task.reported = event.started
        task.timeout_s = event.timeout_s
        task.execution = Execution(
            attempt=event.attempt,
            owner=event.owner,
            claimed_at=self.at,
            started_at=self.at if event.started else None,
            claimed_sequence=self.sequence,
            sequence=self.sequence,
        )
        return None

    def started(self, task: Task, _: Started) -> None:
        self.note(task)
        if task.execution is not None and task.execution.started_at is None:
            task.execution.started_at = self.at
            task.execution.sequence = self.sequence

    def renewed(self, task: Task, event: Heartbeat | Checkpointed) -> None:
        self.note(task)
        task.lease_s = event.lease_s
        task.lease_until = self.at + event.lease_s

    def progressed(self, task: Task, _: Progress) -> None:
        self.note(task)

    def checkpointed(self, task: Task, event: Checkpointed) -> None:
        checkpoints.keep(self.plan, task, event, self.sequence)
        self.renewed(task, event)
        if task.execution is not None and event.token_usage is not None:
            task.execution.token_usage = added(task.execution.token_usage, event.token_usage)
            task.execution.sequence = self.sequence

    def released(self, task: Task, event: Released) -> None:
        self.end_attempt(task, "released", event)
        task.releases += 1
        self.move(task, "released after a retry" if task.retry else "released")
        task.claimable_at = self.at + (event.retry_in_s or 0)
        self.wait_again(task)

    def failed(self, task: Task, event: Failed) -> None:
        task.releases = 0
        self.end_attempt(task, "failed", event)
        if event.error_type == TIMEOUT:
            task.timeouts += 1
        if event.retry_in_s is None:
            self.move(task, "failed")
        else:
            task.retry += 1
            task.claimable_at = self.at + event.retry_in_s
            self.move(task, "failed, will retry")
        self.wait_again(task)

    def completed(self, task: Task, event: Completed) -> None:
        task.releases = 0
        if task.checkpoints:
            checkpoints.drop(self.plan, task)
        self.end_attempt(task, "completed", event)
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
        self.plan.bytes += len(feedback) - len(target.feedback)
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
        task.reported = False
        task.timeout_s = None
        execution = task.execution
        if result is not None:
            if task.result is not None:
                self.plan.bytes -= result_bytes(task.result)
            keep_result(self.plan, task, result, self.sequence)
            self.plan.bytes += result_bytes(task.result)
        if execution is None:
            return
        execution.status = status
        execution.finished_at = self.at
        execution.sequence = self.sequence
        if result is not None:
            execution.model_name = result.model_name
            if result.token_usage is not None:
                execution.token_usage = added(execution.token_usage, result.token_usage)
        if isinstance(result, Failed):
            execution.error_type = result.error_type
            execution.error_message = result.error_message


_OWNED: dict[type[TaskEvent], Callable[[_Fold, Task, Any], None]] = {
    Started: _Fold.started,
    Heartbeat: _Fold.renewed,
    Progress: _Fold.progressed,
    Checkpointed: _Fold.checkpointed,
    Completed: _Fold.completed,
    Failed: _Fold.failed,
    Released: _Fold.released,
}
"""What each fact does that only the owner of a running attempt may write."""
