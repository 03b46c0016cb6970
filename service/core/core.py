"""The core: what HTTP, the executor and the daemons can ask of Holdfast.

It lives on the API loop; other threads reach it through `service.core.bridge`. Each write is one
`streams.decider.transact` against the board; expected refusals come back as values. A write answers
when the board has folded it and never waits for SQLite; a read first waits, within a bound, until
the read models have reached where the board was when it arrived (DESIGN §2).
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import structlog
from msgspec.structs import replace

from projections.board.board import Board
from projections.feed import Feed
from projections.projector import Projector
from projections.read_models.database import Database
from projections.read_models.views import PlanView, TaskView, plan_view, task_view
from service.core.admission import Admission, CheckInput, off_loop
from service.core.answers import (
    AcceptedWrite,
    Behind,
    Claim,
    ClaimRequest,
    OwnerAnswer,
    Refused,
    ReleasedLease,
    Submission,
)
from service.core.claim_queue import ClaimQueue
from service.core.conditions import Conditions
from service.core.log_clock import LogClock
from service.core.owner_writes import NAMES, OwnerWrites
from service.core.plan_closing import PlanClosing
from service.core.secrets_in_plans import key_warnings
from service.core.workers import Workers
from service.runtime.masking import KNOWN
from service.settings.config import Settings
from service.signals.audit.earlier_claims import EarlierClaims
from service.signals.audit.facts import AUDITED, FactAudit
from service.signals.audit.trail import Audit
from service.signals.metrics.facts import COUNTED, FactMetrics
from service.signals.metrics.registry import Metrics
from service.signals.second_holder import SecondHolder
from service.signals.tracing.sampling import begun_traceparent
from service.signals.tracing.spans import Recorder, Span, child_of
from service.signals.visitors import Visitors
from streams import decider
from streams.decider import CommandAccepted, Outcome
from streams.log import Log, LogUnavailable, Origin, TooLarge
from streams.plan import commands
from streams.plan.commands import OwnerCommand
from streams.plan.decisions import Duplicate
from streams.plan.events import Claimed, Submitted
from streams.plan.state import Plan
from streams.traceparent import of_attempt, span_id_of

READ_WAIT_S = 5.0  # how long an explicit min_sequence is waited for (API.md)
READ_OWN_WRITES_S = 2.0  # how long any other read waits before it answers with what there is
RELEASED_AT_ONCE = 500

log = structlog.get_logger("holdfast.core")


class Core:
    """Commands in, values out; also the `View` that `transact` decides on."""

    def __init__(  # noqa: PLR0913 - it brings together what there is
        self,
        *,
        settings: Settings,
        log: Log,
        board: Board,
        projector: Projector,
        database: Database,
        feed: Feed,
        metrics: Metrics,
        clock: LogClock,
        audit: Audit,
        epoch: str,
        check_input: CheckInput,
        tell_goodbye: Callable[[str], None],
        spans: Recorder | None = None,
    ) -> None:
        """``tell_goodbye`` tells the other instances which owner has ended."""
        self.settings = settings
        self.log = log
        self.board = board
        self.projector = projector
        self.database = database
        self.feed = feed
        self.metrics = metrics
        self.clock = clock
        self.audit = audit
        self.spans = spans
        self._tell_goodbye = tell_goodbye
        self.instance_id = settings.executor.instance_id
        # A `decider.View`, and the log's own clock: handed on as they are.
        self.now, self.stream_now = clock.now, clock.stream_now
        self.knows, self.load = board.knows, projector.load
        self.folded, self.catch_up = projector.folded, projector.catch_up
        self.why_ignored = board.ignored.get
        self.claim_queue = ClaimQueue(self, settings.executor.poll_interval_s)
        self.workers = Workers()
        self.visitors = Visitors()
        self._fact_metrics = FactMetrics(metrics, board, spans)
        earlier_claims = EarlierClaims(board)
        self._fact_audit = FactAudit(audit, board, earlier_claims, epoch=epoch)
        self.conditions = Conditions(clock, metrics, audit, self._fact_audit)
        self._owner_writes = OwnerWrites(
            self,
            self._transact,
            self._still_there,
            self._fact_metrics,
            self._fact_audit,
            self.workers,
        )
        clock.on_step = self.conditions.clock_stepped
        self.admission = Admission(projector, settings.memory, check_input)
        self.plan_closing = PlanClosing(board, self.instance_id, self.finish)
        listeners = projector.listeners
        listeners.add("metrics", self._fact_metrics.written_here, COUNTED, only_own=True)
        listeners.add("earlier_claims", earlier_claims.followed, (Claimed,))
        listeners.add("audit", self._fact_audit.written_here, AUDITED, only_own=True)
        listeners.add_for_bad_facts("metrics", self._fact_metrics.bad)
        listeners.add_for_batches("metrics", self._fact_metrics.count_ended)
        listeners.add_for_bad_facts("audit", self._fact_audit.bad)
        self.second_holder = SecondHolder(
            self.instance_id, log, self.now(), self.conditions.id_shared
        )
        listeners.add_for_batches("second_holder", self.second_holder.folded)
        listeners.add_for_batches("workers", self.workers.folded)
        listeners.add_for_batches("feed", lambda batch: feed.publish(batch.facts, batch.position))
        listeners.add_for_batches("claims", lambda _: self.claim_queue.serve_waiting())
        listeners.add_for_batches("plan_closing", self.plan_closing.after)
        projector.on_flush_trouble.append(partial(self.conditions.database_answers, "flush"))

    # -- plans ------------------------------------------------------------------------------

    async def submit(self, plan_id: str, plan: Submitted, origin: Origin) -> Submission | Refused:
        """Accept a plan, or answer that it is there. Raises LogUnavailable, LogFull, TooLarge."""
        if refused := await self.admission.refusal(plan_id, plan):
            return refused
        began_at = self.now()
        with self.admission.entering(plan):
            outcome = await self._transact(commands.Submit(plan_id=plan_id, plan=plan), origin)
        if self.spans is not None and origin.traceparent:
            self.spans.ended(_submit_span(plan_id, plan, origin, began_at, self.now()))
        match outcome:
            case CommandAccepted(sequence):
                warnings = await off_loop(key_warnings, plan)
                return Submission(
                    plan_id=plan_id, sequence=sequence, created=True, warnings=warnings
                )
            case Duplicate(sequence):
                return Submission(plan_id=plan_id, sequence=sequence, created=False)
            case _:
                return _refused(outcome)

    async def operate(
        self,
        command: commands.Pause | commands.Resume | commands.Cancel | commands.RetryAll,
        origin: Origin,
    ) -> PlanView | Refused:
        """Pause, resume or cancel a plan (repeating it is not an error), or retry its tasks."""
        outcome = await self._transact(KNOWN.struct(command, NAMES), origin)
        if not isinstance(outcome, CommandAccepted | Duplicate):
            return _refused(outcome)
        return plan_view(await self._still_there(command.plan_id))

    async def retry(self, command: commands.Retry, origin: Origin) -> TaskView | Refused:
        """Give a FAILED task fresh budgets."""
        outcome = await self._transact(command, origin)
        if not isinstance(outcome, CommandAccepted | Duplicate):
            return _refused(outcome)
        plan = await self._still_there(command.plan_id)
        task = plan.tasks[command.task_id]
        return task_view(plan.plan_id, plan.created_at, task, plan.traceparent)

    async def finish(self, plan_id: str) -> None:
        """Append a plan's last fact if it is due; losing that race is fine."""
        await self._transact(commands.Finish(plan_id=plan_id), self.self_origin)

    async def expire(self, plan_id: str, task_id: str) -> Outcome:
        """Close an expired lease that no claim may take over."""
        command = commands.Expire(plan_id=plan_id, task_id=task_id)
        return await self._transact(command, self.self_origin)

    async def overrun(self, plan_id: str, task_id: str) -> Outcome:
        """Fail an attempt that has outlived its time-out by one lease."""
        most = self.settings.executor.execution.timeout_retry_max
        command = commands.Overrun(plan_id=plan_id, task_id=task_id, timeout_retry_max=most)
        return await self._transact(command, self.self_origin)

    # -- leases -----------------------------------------------------------------------------

    def claim(self, request: ClaimRequest, origin: Origin) -> Coroutine[Any, Any, list[Claim]]:
        """Up to ``request.limit`` leases, waiting up to ``wait_s`` while there is nothing."""
        self.workers.asked(request.owner, request.kinds, self.now())
        return self.claim_queue.claim(request, self._from(origin))

    async def claim_chosen(
        self, plan_id: str, task_id: str, request: ClaimRequest, origin: Origin
    ) -> Claim | Refused:
        """The lease of one chosen task, or why it cannot be had now."""
        self.workers.asked(request.owner, None, self.now())
        return await self.claim_queue.leases.take_chosen(
            plan_id, task_id, request, self._from(origin)
        )

    async def goodbye(self, owner: str, reason: str, origin: Origin) -> list[ReleasedLease]:
        """Release every lease of an owner that ends; its waiting claims end empty, everywhere.

        Raises LogUnavailable, LogFull.
        """
        self._tell_goodbye(owner)
        await self.claim_queue.dismiss(owner)
        await self.catch_up()
        return await self.release_leases_of(owner, reason, origin)

    async def release_leases_of(
        self, owner: str, reason: str, origin: Origin
    ) -> list[ReleasedLease]:
        """Release what ``owner`` holds on the board. Raises LogUnavailable, LogFull."""
        held = [
            commands.Release(
                plan_id=plan.plan_id,
                task_id=task.spec.id,
                owner=owner,
                attempt=task.attempt,
                reason=reason,
            )
            for plan, task in self.board.places.running()
            if task.owner == owner
        ]
        released: list[ReleasedLease] = []
        for start in range(0, len(held), RELEASED_AT_ONCE):
            some = held[start : start + RELEASED_AT_ONCE]
            answers = await self.own_many(some, origin)
            released += [
                ReleasedLease(plan_id=each.plan_id, task_id=each.task_id, attempt=each.attempt)
                for each, answer in zip(some, answers, strict=True)
                if isinstance(answer, AcceptedWrite)
            ]
        return released

    async def abandon(self, claims: Sequence[Claim], owner: str, origin: Origin) -> None:
        """Release leases that could not be delivered to their owner. Raises LogUnavailable."""
        await self.claim_queue.leases.abandon(claims, owner, self._from(origin))

    def own(
        self, command: OwnerCommand, origin: Origin
    ) -> Coroutine[Any, Any, OwnerAnswer | Refused]:
        """Carry out an owner's command on its attempt, without known secrets in it.

        Raises LogUnavailable, LogFull, TooLarge.
        """
        return self._owner_writes.own(command, origin)

    async def own_many(
        self, wanted: Sequence[OwnerCommand], origin: Origin
    ) -> list[AcceptedWrite | Refused | TooLarge]:
        """`own` for each, together, answered in order; one that is too large is an answer.

        Raises LogUnavailable and LogFull, once every command has come to its end.
        """
        return await self._owner_writes.own_many(wanted, origin)

    # -- reading ----------------------------------------------------------------------------

    async def visible(self, min_sequence: int | None) -> None:
        """Wait until a read sees what was written before it, and at least ``min_sequence``.

        Raises Behind when ``min_sequence`` is not reached in READ_WAIT_S. Without one, a database
        that stutters delays a read for a moment but never blanks it.
        """
        if min_sequence is None:
            await self.projector.flushed(self.board.sequence, READ_OWN_WRITES_S)
        elif (
            not await self.projector.flushed(max(self.board.sequence, min_sequence), READ_WAIT_S)
            and self.projector.flushed_sequence < min_sequence
        ):
            raise Behind(self.projector.flushed_sequence)

    async def newest(self) -> None:
        """Wait until a read sees everything that is in the log now: no 404 for what is there.

        Raises LogUnavailable, Behind.
        """
        try:
            async with asyncio.timeout(READ_WAIT_S):
                await self.catch_up()
        except TimeoutError:
            raise LogUnavailable(f"the log was not read within {READ_WAIT_S:g} s") from None
        await self.visible(self.board.sequence)

    # -- inside -----------------------------------------------------------------------------

    def _transact(self, command: commands.Command, origin: Origin) -> Coroutine[Any, Any, Outcome]:
        if not origin.traceparent:
            return self._transact_in_its_trace(command, origin)
        return decider.transact(command, self, self.log, self._from(origin))

    async def _transact_in_its_trace(self, command: commands.Command, origin: Origin) -> Outcome:
        origin = replace(origin, traceparent=await self._trace_for(command))
        return await decider.transact(command, self, self.log, self._from(origin))

    async def _trace_for(self, command: commands.Command) -> str:
        """The trace that a command joins which brought none: its attempt's, or its plan's."""
        if isinstance(command, commands.Submit):
            return begun_traceparent()
        plan = await self.load(command.plan_id)
        if plan is None:
            return ""
        match command:
            case commands.OwnerCommand(task_id=task_id, attempt=attempt):
                return of_attempt(plan.traceparent, plan.plan_id, task_id, attempt)
            case commands.Expire(task_id=task_id) | commands.Overrun(task_id=task_id) if (
                task := plan.tasks.get(task_id)
            ):
                return of_attempt(plan.traceparent, plan.plan_id, task_id, task.attempt)
            case _:
                return plan.traceparent

    def _from(self, origin: Origin) -> Origin:
        if origin.instance == self.instance_id:
            return origin
        return replace(origin, instance=self.instance_id)

    @property
    def self_origin(self) -> Origin:
        """The instance itself writes."""
        name = self.instance_id
        return Origin(actor=name, instance=name, principal=name)

    async def _still_there(self, plan_id: str) -> Plan:
        plan = self.board.knows(plan_id) or await self.load(plan_id)
        if plan is None:
            raise LogUnavailable(f"plan '{plan_id}' is no longer in the log")
        return plan


def _submit_span(
    plan_id: str, plan: Submitted, origin: Origin, began_at: float, ended_at: float
) -> Span:
    return Span(
        name="submit plan",
        kind="internal",
        traceparent=child_of(origin.traceparent),
        parent_id=span_id_of(origin.traceparent),
        began_at=began_at,
        ended_at=ended_at,
        attributes={"holdfast.plan_id": plan_id, "holdfast.tasks": len(plan.tasks)},
    )


def _refused(outcome: Outcome) -> Refused:
    assert not isinstance(outcome, CommandAccepted | Duplicate)  # noqa: S101 - narrows the type
    return outcome
