"""What owners report about their attempts: written to the log, counted, audited and answered.

Many reports of one request are tried together: one list of appends, one wait for the fold. Each
that this does not settle (refused, repeated, or too late in a race) goes its own way after that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

import msgspec
from msgspec.structs import replace

from projections.read_models.views import moment_or_none, task_view
from service.core.answers import AcceptedWrite, OwnerAnswer, Refused
from service.core.workers import Workers
from service.runtime.masking import KNOWN
from service.runtime.per_turn import PerTurn
from service.signals.audit.facts import FactAudit
from service.signals.metrics.facts import FactMetrics
from streams import decider
from streams.decider import CommandAccepted, Contention, Outcome
from streams.log import Conflict, Log, LogFull, LogUnavailable, Origin, TooLarge
from streams.plan import commands
from streams.plan.commands import Heartbeat, OwnerCommand
from streams.plan.decisions import Duplicate, GuardReject, NotAllowed, NotFound
from streams.plan.state import Plan
from streams.traceparent import of_attempt

NAMES = frozenset({"plan_id", "task_id", "owner"})
TOGETHER = 64  # reports that are judged in one turn of the loop

Transact = Callable[[commands.Command, Origin], Awaitable[Outcome]]
Written = AcceptedWrite | Refused | TooLarge
STOPPED = frozenset({"FAILED", "CANCELLED"})  # plans whose running tasks are to stop
UNSETTLED = Contention(0)  # stands where an answer is still to come


class _Report(msgspec.Struct, frozen=True, gc=False):
    """A command without known secrets; how its lease stood before it, and who writes it."""

    command: OwnerCommand
    lease_until: float | None
    lease_s: float
    origin: Origin


class OwnerContext(decider.View, Protocol):
    """A view to decide on, the log to append to, and who appends."""

    log: Log
    instance_id: str

    def stream_now(self) -> float:
        """What the log's own clock shows."""
        ...


class OwnerWrites:
    """Carries out owners' commands; lives on the API loop."""

    def __init__(
        self,
        core: OwnerContext,
        transact: Transact,
        still_there: Callable[[str], Awaitable[Plan]],
        metrics: FactMetrics,
        audit: FactAudit,
        workers: Workers,
    ) -> None:
        self._core = core
        self._transact = transact
        self._still_there = still_there
        self._metrics = metrics
        self._audit = audit
        self._workers = workers
        self._accepted = PerTurn(self._count)

    async def own(self, command: OwnerCommand, origin: Origin) -> OwnerAnswer | Refused:
        """See `service.core.core.Core.own`."""
        report = self._report(command, origin)
        try:
            outcome = await self._transact(report.command, report.origin)
        except (LogUnavailable, LogFull, TooLarge) as error:
            self._failed(report, error)
            raise
        plan: Plan | None = None
        status: Literal["accepted", "duplicate"] = "duplicate"
        if isinstance(outcome, CommandAccepted):
            plan, status = outcome.plan, "accepted"
        elif not isinstance(outcome, Duplicate):
            return self._refused(report, outcome)
        plan = plan or await self._still_there(command.plan_id)
        self._accepted.add([report])
        task = task_view(
            plan.plan_id,
            plan.created_at,
            plan.tasks[command.task_id],
            plan.traceparent,
            output=command.output if isinstance(command, commands.Complete) else None,
        )
        return OwnerAnswer(
            status=status,
            sequence=outcome.sequence,
            lease_until=task.lease_until,
            cancel_requested=plan.status in STOPPED,
            task=task,
        )

    async def own_many(self, wanted: Sequence[OwnerCommand], origin: Origin) -> list[Written]:
        """See `service.core.core.Core.own_many`."""
        parts = [wanted[first : first + TOGETHER] for first in range(0, len(wanted), TOGETHER)]
        answers = await asyncio.gather(
            *(self._together(part, origin) for part in parts), return_exceptions=True
        )
        written: list[Written] = []
        for part in answers:
            for answer in [part] if isinstance(part, BaseException) else part:
                if isinstance(answer, BaseException) and not isinstance(answer, TooLarge):
                    raise answer
                written.append(answer)
        return written

    # -- many -------------------------------------------------------------------------------

    async def _together(
        self, wanted: Sequence[OwnerCommand], origin: Origin
    ) -> list[Written | BaseException]:
        reports = [self._report(command, origin) for command in wanted]
        outcomes = await decider.transact_together(
            [(each.command, each.origin) for each in reports], self._core, self._core.log
        )
        answers: list[Written | BaseException] = []
        written: list[_Report] = []
        alone: list[int] = []
        for place, (report, outcome) in enumerate(zip(reports, outcomes, strict=True)):
            if isinstance(outcome, CommandAccepted):
                plan = outcome.plan or await self._still_there(report.command.plan_id)
                answers.append(_answer(report, outcome, plan))
                written.append(report)
            elif outcome is None or isinstance(outcome, Conflict):
                answers.append(UNSETTLED)
                alone.append(place)
            else:
                self._failed(report, outcome)
                answers.append(outcome)
        self._accepted.add(written)
        settled = await asyncio.gather(
            *(self._settle(reports[place]) for place in alone), return_exceptions=True
        )
        for place, answer in zip(alone, settled, strict=True):
            answers[place] = answer
        return answers

    async def _settle(self, report: _Report) -> AcceptedWrite | Refused:
        answer = await self.own(report.command, report.origin)
        if not isinstance(answer, OwnerAnswer):
            return answer
        return AcceptedWrite(
            status=answer.status,
            sequence=answer.sequence,
            lease_until=answer.lease_until,
            cancel_requested=answer.cancel_requested,
        )

    # -- one --------------------------------------------------------------------------------

    def _report(self, command: OwnerCommand, origin: Origin) -> _Report:
        command = KNOWN.struct(command, NAMES)
        plan = self._core.knows(command.plan_id)
        task = plan.tasks.get(command.task_id) if plan is not None else None
        trace = origin.traceparent
        if plan is not None and plan.traceparent and not trace:
            trace = of_attempt(plan.traceparent, plan.plan_id, command.task_id, command.attempt)
        origin = replace(origin, instance=self._core.instance_id, traceparent=trace)
        if task is None:
            return _Report(command, None, 0.0, origin)
        return _Report(command, task.lease_until, task.lease_s, origin)

    def _failed(self, report: _Report, error: LogUnavailable | LogFull | TooLarge) -> None:
        self._metrics.owner_write_failed(report.command, error)
        self._audit.owner_write_failed(report.command, error, report.origin)

    def _refused(self, report: _Report, outcome: Refused) -> Refused:
        command = report.command
        if isinstance(outcome, GuardReject):
            self._metrics.owner_write_refused(command)
            self._workers.refused(command, self._core.now())
            self._audit.owner_write_refused(command, outcome, report.origin)
        elif isinstance(outcome, Contention | NotFound | NotAllowed):
            self._metrics.owner_write_failed(command, outcome)
            self._audit.owner_write_failed(command, outcome, report.origin)
        return outcome

    def _count(self, written: Sequence[_Report]) -> None:
        now = self._core.stream_now()
        left = [
            (each.lease_until - now, each.lease_s)
            for each in written
            if each.lease_until is not None and isinstance(each.command, Heartbeat)
        ]
        self._metrics.owner_writes_accepted([each.command for each in written], left)


def _answer(report: _Report, outcome: CommandAccepted, plan: Plan) -> AcceptedWrite:
    return AcceptedWrite(
        status="accepted",
        sequence=outcome.sequence,
        lease_until=moment_or_none(plan.tasks[report.command.task_id].lease_until),
        cancel_requested=plan.status in STOPPED,
    )
