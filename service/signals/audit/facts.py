"""What becomes an audit entry: facts of this instance, and owners' commands that it refused.

A fact is audited when it is folded, and only by the process that wrote it
(`projections.listeners`). A fact without a writer (it cannot be read, or is ignored) is audited
by every instance under one id, and stands in the trail once.
"""

from projections.board.board import Board
from service.signals.audit.earlier_claims import EarlierClaims
from service.signals.audit.trail import Audit
from service.signals.metrics.facts import OPERATIONS, Trouble
from streams.decider import Contention
from streams.log import BadFact, Fact, LogUnavailable, Origin
from streams.plan.commands import Heartbeat, OwnerCommand
from streams.plan.decisions import GuardReject, NotAllowed, NotFound
from streams.plan.events import (
    Cancelled,
    Claimed,
    Completed,
    Event,
    Failed,
    Paused,
    Released,
    Resumed,
    Retried,
    Started,
)
from streams.plan.lifecycle import ENDED
from streams.plan.state import LEASE_EXPIRED, TIMEOUT, Execution, Plan
from streams.traceparent import trace_id_of

MAX_SAID = 10_000  # owners' commands that failed in one outage, each audited once

AUDITED = (Claimed, Started, Completed, Failed, Released, Paused, Resumed, Cancelled, Retried)
"""Facts that are audit entries."""

Operation = Paused | Resumed | Cancelled | Retried | Released

_ACTIONS: dict[type[Operation], str] = {
    Paused: "pause",
    Resumed: "resume",
    Cancelled: "cancel",
    Retried: "retry",
    Released: "take_back",
}


class FactAudit:
    """Turns facts and refusals into audit entries; lives on the API loop.

    ``epoch`` tells this log from others.
    """

    def __init__(self, audit: Audit, board: Board, earlier: EarlierClaims, *, epoch: str) -> None:
        self._audit = audit
        self._board = board
        self._earlier = earlier
        self._epoch = epoch
        self._said: set[tuple[str, str, int, str]] = set()

    # -- facts ------------------------------------------------------------------------------

    def written_here(self, fact: Fact) -> None:
        """Audit a fact that this process wrote and that counts."""
        event = fact.event
        if isinstance(event, Claimed) and event.previous_owner is not None:
            self._reclaimed(fact, event)
        if self._audit.tells_success:
            self._succeeded(fact, event)
        match event:  # the most frequent first
            case Completed(verdict=verdict):
                if verdict is not None and not verdict.pass_:
                    self._rejected(fact, event)
            case Claimed():
                pass
            case Failed():
                self._failed(fact, event)
            case Paused() | Resumed() | Cancelled() | Retried():
                self._operated(fact, event)
            case Released() if not _is_given_back(fact, event):
                self._operated(fact, event)
            case _:
                pass

    def _succeeded(self, fact: Fact, event: Event) -> None:
        """Audit what went as it should."""
        match event:
            case Claimed():
                if event.previous_owner is None:
                    sequence = {"sequence": fact.sequence}
                    self._tell("claim_acquired", fact, event, f"lane {event.lane}", actual=sequence)
                if event.started:
                    self._tell("execution_started", fact, event)
            case Started():
                self._tell("execution_started", fact, event)
            case Completed():
                self._tell("execution_completed", fact, event)
            case Released() if _is_given_back(fact, event):
                self._tell("claim_released", fact, event, event.reason)
            case _:
                pass

    def bad(self, fact: BadFact) -> None:
        """Audit a fact that cannot be read or applied."""
        plan_id, task_id = _split(fact.subject)
        self._audit.emit(
            "bad_event",
            plan_id=plan_id,
            task_id=task_id,
            actual={"sequence": fact.sequence, "subject": fact.subject},
            detail=f"sequence {fact.sequence} on {fact.subject}: {fact.reason}",
            once=f"bad-event-{self._epoch}-{fact.sequence}",
        )

    def _reclaimed(self, fact: Fact, event: Claimed) -> None:
        before = self._earlier.of(fact.plan_id, fact.task_id or "", event.attempt - 1)
        self._tell(
            "claim_reclaimed",
            fact,
            event,
            f"the lease of {event.previous_owner} (attempt {event.attempt - 1}) had expired",
            expected={
                "owner": event.previous_owner,
                "attempt": event.attempt - 1,
                "sequence": before.claimed_sequence if before else None,
            },
            actual={
                "status": "RUNNING",
                "owner": event.owner,
                "attempt": event.attempt,
                "sequence": fact.sequence,
            },
        )

    def _rejected(self, fact: Fact, event: Completed) -> None:
        plan = self._board.knows(fact.plan_id)
        critic = plan.tasks.get(fact.task_id or "") if plan else None
        target = plan.tasks.get(critic.spec.target or "") if plan and critic else None
        if target is None or target.sequence != fact.sequence:
            return  # a stale verdict has moved nothing
        self._audit.emit(
            "execution_critic_rejected",
            plan_id=fact.plan_id,
            task_id=target.spec.id,
            owner=target.execution.owner if target.execution else None,
            principal=fact.origin.principal,
            attempt=target.attempt,
            actual={
                "critic": fact.task_id,
                "owner": event.owner,
                "attempt": event.attempt,
                "sequence": fact.sequence,
                "status": target.status,
            },
            trace_id=trace_id_of(fact.origin.traceparent),
            detail=f"the critic '{fact.task_id}' rejected it; it is {target.status}, "
            f"retry {target.retry} of {target.spec.max_retries}",
        )

    def _failed(self, fact: Fact, event: Failed) -> None:
        plan = self._board.knows(fact.plan_id)
        task = plan.tasks.get(fact.task_id or "") if plan else None
        poisoned = (
            event.error_type == LEASE_EXPIRED
            and task is not None
            and task.lost >= task.spec.max_lost_leases
        )
        if event.retry_in_s is None:
            then = "final"
        elif task is not None and task.status in ENDED:
            then = "not tried again, for the plan has failed"
        else:
            then = f"tried again in {event.retry_in_s:g} s"
        said = f": {event.error_message}" if event.error_message else ""
        name = "execution_timeout" if event.error_type == TIMEOUT else "execution_failed"
        self._tell(
            "task_poisoned" if poisoned else name,
            fact,
            event,
            f"{event.error_type}, {then}{said}",
            actual={
                "status": task.status if task else None,
                "error_type": event.error_type,
                "lost": task.lost if task else None,
                "sequence": fact.sequence,
            },
        )

    def _operated(self, fact: Fact, event: Operation) -> None:
        action, who = _ACTIONS[type(event)], fact.origin.actor
        self._audit.emit(
            "operator_action",
            plan_id=fact.plan_id,
            task_id=_task_of(fact, event),
            owner=who or None,
            principal=fact.origin.principal,
            actual={"action": action, "reason": event.reason, "sequence": fact.sequence},
            trace_id=trace_id_of(fact.origin.traceparent),
            detail=f"{action} by {who or 'an unnamed caller'}: {event.reason or 'no reason given'}",
        )

    def _tell(
        self,
        name: str,
        fact: Fact,
        event: Claimed | Started | Completed | Failed | Released,
        detail: str | None = None,
        *,
        expected: object = None,
        actual: object = None,
    ) -> None:
        self._audit.emit(
            name,
            plan_id=fact.plan_id,
            task_id=fact.task_id,
            owner=event.owner,
            principal=fact.origin.principal,
            attempt=event.attempt,
            expected=expected,
            actual=actual,
            trace_id=trace_id_of(fact.origin.traceparent),
            detail=detail,
            at=fact.at,
        )

    # -- owners' commands ----------------------------------------------------------------------

    def owner_write_refused(
        self, command: OwnerCommand, refused: GuardReject, origin: Origin
    ) -> None:
        """Audit the refused write of a stale owner: who wrote, and who holds or ended the task."""
        now, heartbeat = refused.current, isinstance(command, Heartbeat)
        holder = self._claim(command, now.attempt)
        self._owner_write(
            "lease_renew_guard_reject" if heartbeat else "claimed_update_guard_reject",
            command,
            origin,
            f"{_op(command)} of attempt {command.attempt} by {command.owner} refused: "
            f"the task is {now.status}, attempt {now.attempt}",
            actual={
                "status": now.status,
                "owner": now.owner or (holder.owner if holder else None),
                "attempt": now.attempt,
                "sequence": holder.claimed_sequence if holder else None,
            },
        )

    def owner_write_failed(self, command: OwnerCommand, trouble: Trouble, origin: Origin) -> None:
        """An owner's command could not be written; in one outage each is audited once."""
        heartbeat = isinstance(command, Heartbeat)
        if isinstance(trouble, LogUnavailable):
            key = (command.plan_id, command.task_id, command.attempt, _op(command))
            if key in self._said:
                return
            if len(self._said) < MAX_SAID:  # beyond, the audit's own bound holds, and counts
                self._said.add(key)
        event = "lease_renew_error" if heartbeat else "claimed_update_error"
        self._owner_write(event, command, origin, f"{_op(command)}: {_why(trouble)}")

    def log_recovered(self) -> None:
        """The next outage audits failing commands again."""
        self._said.clear()

    def _owner_write(
        self, name: str, command: OwnerCommand, origin: Origin, detail: str, actual: object = None
    ) -> None:
        claim = self._claim(command, command.attempt)
        ours = claim is not None and claim.owner == command.owner
        self._audit.emit(
            name,
            plan_id=command.plan_id,
            task_id=command.task_id,
            owner=command.owner,
            principal=origin.principal,
            attempt=command.attempt,
            expected={
                "owner": command.owner,
                "attempt": command.attempt,
                "sequence": claim.claimed_sequence if claim and ours else None,
            },
            actual=actual,
            trace_id=_trace_id(origin, self._board.knows(command.plan_id)),
            detail=detail,
        )

    def _claim(self, command: OwnerCommand, attempt: int) -> Execution | None:
        """The execution of an attempt, if it is the task's last or was seen to be followed."""
        plan = self._board.knows(command.plan_id)
        task = plan.tasks.get(command.task_id) if plan else None
        if task is None:
            return None
        if task.execution is not None and task.execution.attempt == attempt:
            return task.execution
        return self._earlier.of(command.plan_id, command.task_id, attempt)


def _is_given_back(fact: Fact, event: Released) -> bool:
    """Whether the owner gave the lease back, not an operator for it."""
    return fact.origin.actor in {"", event.owner, fact.origin.instance}


def _trace_id(origin: Origin, plan: Plan | None) -> str | None:
    """The trace of a command: its own, or its plan's when it brought none."""
    return trace_id_of(origin.traceparent) or (trace_id_of(plan.traceparent) if plan else None)


def _op(command: OwnerCommand) -> str:
    return "heartbeat" if isinstance(command, Heartbeat) else OPERATIONS[type(command)]


def _why(trouble: Trouble) -> str:
    match trouble:
        case NotFound() | NotAllowed() | Contention():
            return f"{type(trouble).__name__}: {trouble.detail}"
        case _:
            return f"{type(trouble).__name__}: {trouble}"


def _task_of(fact: Fact, event: Operation) -> str | None:
    """The one task that an operator acted on; None if it was the whole plan."""
    if isinstance(event, Retried):
        return None if event.also else event.task_id
    return fact.task_id


def _split(subject: str) -> tuple[str | None, str | None]:
    _, _, place = subject.partition(".")
    plan_id, _, task_id = place.partition(".")
    return plan_id or None, task_id or None
