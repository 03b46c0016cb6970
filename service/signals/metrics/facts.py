"""Counts what happens around leases: what owners wrote, and how the attempts written here ended.

Attempts are counted when the fact that ends them is folded, and only by the process that wrote
that fact (`projections.listeners`): each end is counted once.
"""

from collections.abc import Sequence

from projections.board.board import Board
from projections.listeners import Batch
from service.signals.metrics.registry import Metrics
from service.signals.tracing.spans import Recorder, Span
from streams.decider import Contention
from streams.log import BadFact, Fact, LogFull, LogUnavailable, TooLarge
from streams.plan.commands import (
    Checkpoint,
    Complete,
    Fail,
    Heartbeat,
    OwnerCommand,
    Progress,
    Release,
    Start,
)
from streams.plan.decisions import NotAllowed, NotFound
from streams.plan.events import (
    Cancelled,
    Checkpointed,
    Claimed,
    Completed,
    Failed,
    Finished,
    Released,
    TokenUsage,
)
from streams.plan.lifecycle import ENDED
from streams.plan.state import TIMEOUT, Execution, Plan, Task
from streams.traceparent import of_attempt, span_id_of, trace_id_of

OPERATIONS: dict[type[OwnerCommand], str] = {
    Start: "start",
    Progress: "progress",
    Checkpoint: "checkpoint",
    Complete: "complete",
    Fail: "fail",
    Release: "release",
}
"""What each owner's command is called but the heartbeat, which has metrics of its own."""

# A checkpoint counts as progress: the series of an instance are bounded.
_LABELS = OPERATIONS | {Checkpoint: OPERATIONS[Progress]}

DISPATCH_REJECTED = "dispatch rejected"
"""How the reason of a release begins whose claim the pool refused."""

COUNTED = (Claimed, Completed, Failed, Released, Checkpointed, Cancelled, Finished)
"""Facts that `FactMetrics` may count something for."""

Trouble = LogUnavailable | LogFull | TooLarge | Contention | NotFound | NotAllowed
_KINDS: dict[type, str] = {
    LogUnavailable: "log_unavailable",
    LogFull: "log_full",
    TooLarge: "too_large",
    Contention: "contended",
    NotFound: "not_found",
    NotAllowed: "not_allowed",
}


class FactMetrics:
    """Turns facts and owners' answers into metrics."""

    def __init__(self, metrics: Metrics, board: Board, spans: Recorder | None = None) -> None:
        self._metrics = metrics
        self._spans = spans
        self._board = board
        # Of the attempts that this batch has ended, by result, task type and trace id.
        self._durations: dict[tuple[str, str, str | None], list[float]] = {}

    # -- what owners wrote ------------------------------------------------------------------

    def owner_writes_accepted(
        self, written: Sequence[OwnerCommand], left: Sequence[tuple[float, float]]
    ) -> None:
        """Owners' commands were accepted.

        ``left`` has for each lease that was renewed how much was left of how much, in seconds.
        """
        kinds = [type(each) for each in written]
        if left:
            lefts, shares = [max(s, 0.0) for s, _ in left], [max(s, 0.0) / of for s, of in left]
            self._metrics.observe("agent.task.lease.remaining_at_renew", *lefts)
            self._metrics.observe("agent.task.lease.remaining_at_renew.ratio", *shares)
        for kind in set(kinds):
            number = kinds.count(kind)
            if kind is Heartbeat:
                self._metrics.count("agent.task.heartbeat.success.total", number)
            else:
                name = "agent.task.claimed_update.success.total"
                self._metrics.count(name, number, op=_LABELS[kind])

    def owner_write_refused(self, command: OwnerCommand) -> None:
        """A stale owner was turned away."""
        plan = self._board.knows(command.plan_id)
        trace_id = None if plan is None else trace_id_of(plan.traceparent)
        if isinstance(command, Heartbeat):
            self._metrics.count("agent.task.heartbeat.guard_reject.total", trace_id=trace_id)
        else:
            self._metrics.count(
                "agent.task.claimed_update.guard_reject.total",
                op=_LABELS[type(command)],
                trace_id=trace_id,
            )

    def owner_write_failed(self, command: OwnerCommand, trouble: Trouble) -> None:
        """An owner's command could not be written."""
        if isinstance(command, Heartbeat):
            self._metrics.count("agent.task.heartbeat.error.total", kind=_KINDS[type(trouble)])
        else:
            self._metrics.count("agent.task.claimed_update.error.total", op=_LABELS[type(command)])

    # -- how attempts ended -----------------------------------------------------------------

    def bad(self, fact: BadFact) -> None:
        """Count a fact that could not be read or applied."""
        del fact
        self._metrics.count("agent.projection.bad_event.total")

    def written_here(self, fact: Fact) -> None:
        """Note the attempts, and count the plans, that a fact of this process has ended."""
        event = fact.event
        if isinstance(event, Claimed) and event.previous_owner is None:
            return  # it has ended no attempt
        plan = self._board.knows(fact.plan_id)
        if plan is None:
            return
        match event:
            case Released(reason=reason) if reason.startswith(DISPATCH_REJECTED):
                pass  # counted as a rejected dispatch: nothing was executed
            case Completed() | Failed() | Released():
                task = plan.tasks[fact.task_id or ""]
                self._ended(plan, task, task.execution)
                self._tokens(event.token_usage)
                if isinstance(event, Failed):
                    self._failure(task, event, trace_id_of(plan.traceparent))
            case Checkpointed(token_usage=usage):
                self._tokens(usage)
            case Claimed():
                self._lost(plan, fact.task_id or "")
            case Cancelled():
                self._cancelled(plan, fact.sequence)
            case Finished(status=status):
                self._metrics.count("agent.plan.finished.total", status=status)
            case _:
                pass

    def count_ended(self, _: Batch) -> None:
        """Count the attempts that facts of the batch have ended: many alike in one go."""
        ended, self._durations = self._durations, {}
        for (result, task_type, trace_id), durations in ended.items():
            labels = {"result": result, "task_type": task_type}
            self._metrics.count("agent.task.execution.total", len(durations), **labels)
            self._metrics.observe(
                "agent.task.execution.duration", *durations, trace_id=trace_id, **labels
            )

    def _ended(self, plan: Plan, task: Task, execution: Execution | None) -> None:
        if execution is None or execution.finished_at is None:
            return
        duration_s = max(execution.finished_at - (execution.started_at or execution.claimed_at), 0)
        key = execution.status, task.spec.type, trace_id_of(plan.traceparent)
        self._durations.setdefault(key, []).append(duration_s)
        if self._spans is not None:
            self._spans.ended(_span(plan, task, execution, execution.finished_at))

    def _tokens(self, usage: TokenUsage | None) -> None:
        if usage is not None:
            name = "agent.task.execution.tokens"
            self._metrics.count(name, usage.input_tokens, direction="input")
            self._metrics.count(name, usage.output_tokens, direction="output")

    def _failure(self, task: Task, event: Failed, trace_id: str | None) -> None:
        task_type = task.spec.type
        self._metrics.count(
            "agent.task.execution.failure.total",
            error_type=event.error_type,
            task_type=task_type,
            trace_id=trace_id,
        )
        if event.error_type == TIMEOUT:
            self._metrics.count("agent.task.execution.timeout.total", task_type=task_type)
            end = "final_fail" if task.status in ENDED else "retry"
            self._metrics.count(f"agent.task.execution.timeout.{end}.total", task_type=task_type)

    def _lost(self, plan: Plan, task_id: str) -> None:
        self._ended(plan, plan.tasks[task_id], plan.closed[-1][1])

    def _cancelled(self, plan: Plan, sequence: int) -> None:
        for task in plan.tasks.values():
            if task.execution is not None and task.execution.sequence == sequence:
                self._ended(plan, task, task.execution)


def _span(plan: Plan, task: Task, execution: Execution, ended_at: float) -> Span:
    """An attempt, from its claim to its end; its facts and what it calls name this span."""
    attempt, task_id = execution.attempt, task.spec.id
    failed = execution.error_type if execution.status == "failed" else None
    return Span(
        name=f"execute {task.spec.kind}",
        kind="consumer",
        traceparent=of_attempt(plan.traceparent, plan.plan_id, task_id, attempt),
        parent_id=span_id_of(plan.traceparent),
        began_at=execution.claimed_at,
        ended_at=ended_at,
        attributes={
            "holdfast.plan_id": plan.plan_id,
            "holdfast.task_id": task_id,
            "holdfast.attempt": attempt,
            "holdfast.kind": task.spec.kind,
            "holdfast.owner": execution.owner,
            "holdfast.result": execution.status,
        },
        error_type="lost" if execution.status == "lost" else failed,
    )
