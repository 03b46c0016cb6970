"""Writes claims: those of one request together, as one list of appends and one wait for the fold.

A claim has one try: where it loses its race, another task may be claimed instead.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from projections.board.lanes import Pick
from service.core.answers import ClaimRequest
from service.core.queue_context import QueueContext
from service.core.standstill import Standstill
from streams import decider
from streams.log import Conflict, LogFull, LogUnavailable, Origin, TooLarge
from streams.plan import commands
from streams.plan.state import Plan, Task
from streams.traceparent import of_attempt

ONE_TRY = decider.DecideLimits(tries=1)

Tried = decider.Outcome | LogUnavailable | LogFull | TooLarge


class Taking(msgspec.Struct, eq=False):
    """One claim on its way: the command for a picked task, and what its owner will need."""

    pick: Pick
    plan: Plan
    task: Task
    command: commands.Claim
    origin: Origin
    reclaim: bool
    found: dict[int, Raw] = {}


def taking_of(pick: Pick, request: ClaimRequest, origin: Origin) -> Taking:
    """The claim of a picked task for who asks."""
    plan, task = pick.seat.plan, pick.seat.task
    command = commands.Claim(
        plan_id=plan.plan_id,
        task_id=task.spec.id,
        owner=request.owner,
        lease_s=request.lease_s or task.spec.lease_s or request.default_lease_s,
        start=request.start,
        timeout_s=timeout_s(task, request) if request.bounded else None,
    )
    reclaim = task.status == "RUNNING"
    return Taking(pick, plan, task, command, in_trace_of(plan, task, origin), reclaim)


def in_trace_of(plan: Plan, task: Task, origin: Origin) -> Origin:
    """``origin`` for the next attempt: a request without a trace joins the plan's."""
    if origin.traceparent:
        return origin
    trace = of_attempt(plan.traceparent, plan.plan_id, task.spec.id, task.attempt + 1)
    return replace(origin, traceparent=trace)


def timeout_s(task: Task, request: ClaimRequest) -> float:
    """How long the attempt may take: what the task says, or else what its owner does."""
    return task.spec.timeout_s or request.default_timeout_s


class ClaimWriter:
    """Tells of each claim what has become of it; lives on the API loop."""

    def __init__(self, core: QueueContext, standstill: Standstill) -> None:
        self._core = core
        self._standstill = standstill

    async def write(self, takings: Sequence[Taking]) -> list[Tried]:
        """What has become of each; an error of the log is an outcome."""
        if len(takings) == 1:
            return [await self._write_one(takings[0])]
        commands = [(each.command, each.origin) for each in takings]
        try:
            with self._standstill:
                tried = await decider.transact_together(commands, self._core, self._core.log)
                _raise_if_none_was_answered(tried)
        except LogUnavailable as error:
            return [error] * len(takings)
        return [
            await self._settle(taking, outcome)
            if outcome is None or isinstance(outcome, Conflict)
            else outcome
            for taking, outcome in zip(takings, tried, strict=True)
        ]

    async def _settle(self, taking: Taking, conflict: Conflict | None) -> Tried:
        """What becomes of a claim whose first try, with others, has settled nothing."""
        if conflict is None or _has_expired(conflict, taking):
            return await self._write_one(taking)
        plan_id, task_id = taking.command.plan_id, taking.command.task_id
        try:
            overlooked = await decider.folds_past(plan_id, task_id, conflict.actual, self._core)
        except LogUnavailable as error:
            return error
        if overlooked:
            return await self._write_one(taking)
        return decider.Contention(1)  # it is offered again, now that it is known who has won

    async def _write_one(self, taking: Taking) -> Tried:
        try:
            with self._standstill:
                return await decider.transact(
                    taking.command, self._core, self._core.log, taking.origin, ONE_TRY
                )
        except (LogUnavailable, LogFull) as error:
            return error


def _has_expired(conflict: Conflict, taking: Taking) -> bool:
    """Whether the log no longer has the heartbeat that the claim expected to be the last."""
    return conflict.actual is not None and conflict.actual < taking.task.subject_sequence


def _raise_if_none_was_answered(tried: Sequence[decider.FirstTry]) -> None:
    errors = [each for each in tried if isinstance(each, LogUnavailable)]
    if tried and len(errors) == len(tried):
        raise errors[0]
