"""Takes leases: a claim for each picked task, answered with all that its owner needs.

A lease whose asker has gone before it got the answer, or whose request has run out of time, is
released as soon as it is known.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import structlog
from msgspec import UNSET, Raw
from msgspec.structs import replace

from projections.board.lanes import Pick
from projections.read_models.views import moment
from service.core.answers import Claim, ClaimRequest, Refused
from service.core.claim_inputs import (
    FoundValues,
    checkpoints_of,
    dependencies_of,
    missing,
    read_back,
)
from service.core.claim_writes import ClaimWriter, Taking, Tried, in_trace_of, taking_of, timeout_s
from service.core.queue_context import QueueContext
from service.core.standstill import Standstill
from service.runtime.per_turn import PerTurn
from streams import decider
from streams.log import LogFull, LogUnavailable, Origin
from streams.plan import commands
from streams.plan.decisions import Duplicate, NotAllowed
from streams.plan.state import Plan, Task
from streams.traceparent import of_attempt

ABANDONED = (
    "the client that claimed the task did not get the answer: "
    "it closed the connection, or the time of its request was over"
)
GOODBYE = "its owner has said goodbye"

T = TypeVar("T")

log = structlog.get_logger("holdfast.claims")


class LeaseTaker:
    """Writes claims; lives on the API loop."""

    def __init__(self, core: QueueContext, standstill: Standstill) -> None:
        self._core = core
        self._releasing: set[asyncio.Task[None]] = set()
        self._writer = ClaimWriter(core, standstill)
        self._taken = PerTurn(self._count)
        self.standstill = standstill

    def take(
        self, picks: list[Pick], request: ClaimRequest, origin: Origin
    ) -> Coroutine[Any, Any, list[Claim]]:
        """Take leases; when the asker goes meanwhile, they are released as soon as they are known.

        An append that is cancelled may be stored all the same, so it is never cancelled.
        """
        taking = self._take_all(picks, request, origin)
        return self._to_the_end(taking, list, request, origin)

    def take_chosen(
        self, plan_id: str, task_id: str, request: ClaimRequest, origin: Origin
    ) -> Coroutine[Any, Any, Claim | Refused]:
        """The lease of one task that the owner chose, if it is claimable now; see `take`.

        Raises LogUnavailable, LogFull.
        """
        taking = self._take_chosen(plan_id, task_id, request, origin)
        return self._to_the_end(taking, _granted_in, request, origin)

    async def _to_the_end(
        self,
        taking: Coroutine[Any, Any, T],
        claims_in: Callable[[T], Sequence[Claim]],
        request: ClaimRequest,
        origin: Origin,
    ) -> T:
        task = asyncio.create_task(taking)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._release_later(_claims(task, claims_in), request.owner, origin, ABANDONED)
            raise

    def release_after_goodbye(self, claims: Sequence[Claim], owner: str, origin: Origin) -> None:
        """Release the leases of an owner that said goodbye meanwhile, even if it hangs up now."""
        granted = asyncio.get_running_loop().create_future()
        granted.set_result(claims)
        self._release_later(granted, owner, origin, GOODBYE)

    def _release_later(
        self, granted: Awaitable[Sequence[Claim]], owner: str, origin: Origin, reason: str
    ) -> None:
        self._kept(asyncio.create_task(self._release(granted, owner, origin, reason)))

    def _kept(self, releasing: "asyncio.Task[None]") -> "asyncio.Task[None]":
        self._releasing.add(releasing)
        releasing.add_done_callback(self._releasing.discard)
        return releasing

    async def _release(
        self, granted: Awaitable[Sequence[Claim]], owner: str, origin: Origin, reason: str
    ) -> None:
        try:
            await self._abandon(await granted, owner, origin, reason)
        except (LogUnavailable, LogFull) as error:
            log.warning("claims_not_released", owner=owner, error=str(error))

    async def abandon(self, claims: Sequence[Claim], owner: str, origin: Origin) -> None:
        """Release leases that were granted and could not be delivered. Raises LogUnavailable.

        Also to the end when the caller is cancelled.
        """
        releasing = asyncio.create_task(self._abandon(claims, owner, origin, ABANDONED))
        await asyncio.shield(self._kept(releasing))

    async def _abandon(
        self, claims: Sequence[Claim], owner: str, origin: Origin, reason: str
    ) -> None:
        for claim in claims:
            log.info("claim_abandoned", plan_id=claim.plan_id, task_id=claim.task_id, owner=owner)
            command = commands.Release(
                plan_id=claim.plan_id,
                task_id=claim.task_id,
                owner=owner,
                attempt=claim.attempt,
                reason=reason,
            )
            await self._core.own(command, replace(origin, traceparent=claim.traceparent))

    async def _take_all(
        self, picks: list[Pick], request: ClaimRequest, origin: Origin
    ) -> list[Claim]:
        takings = [taking_of(pick, request, origin) for pick in picks]
        began_at = asyncio.get_running_loop().time()
        tried: Sequence[Tried] = ()
        try:
            unread = [each for each in takings if missing(each.plan, each.task, each.found)]
            if unread:
                tried = await self._read_and_write(takings, unread)
            else:
                tried = await self._writer.write(takings)
        finally:
            self._core.board.places.lanes.took(asyncio.get_running_loop().time() - began_at)
            for each, outcome in zip_longest(takings, tried):
                # What was claimed runs, and has no seat any more.
                if not isinstance(outcome, decider.CommandAccepted):
                    self._give_back(each, lost=isinstance(outcome, decider.Contention))
        claims: list[Claim] = []
        errors: list[Exception] = []
        taken: list[Taking] = []
        for each, outcome in zip(takings, tried, strict=True):
            if isinstance(outcome, Exception):
                errors.append(outcome)
            elif isinstance(outcome, decider.CommandAccepted):
                taken.append(each)
                # Another instance may have reclaimed it while this one did not run for a lease.
                if each.task.claimed_sequence != outcome.sequence:
                    continue
                # A dependency may have been accepted anew, or have left memory meanwhile.
                plan, task, found = each.plan, each.task, each.found
                if missing(plan, task, found) and (error := await self._read(each)) is not None:
                    errors.append(error)
                else:
                    claims.append(_granted(plan, task, outcome.sequence, request, found))
        self._taken.add(taken)
        if errors and not claims:
            raise errors[0]
        return claims

    async def _take_chosen(
        self, plan_id: str, task_id: str, request: ClaimRequest, origin: Origin
    ) -> Claim | Refused:
        plan = await self._core.load(plan_id)
        task = plan.tasks.get(task_id) if plan is not None else None
        command = commands.Claim(
            plan_id=plan_id,
            task_id=task_id,
            owner=request.owner,
            lease_s=request.lease_s,
            start=request.start,
            timeout_s=request.default_timeout_s if task is None else timeout_s(task, request),
            chosen=True,
        )
        if plan is not None and task is not None:
            origin = in_trace_of(plan, task, origin)
        outcome = await decider.transact(command, self._core, self._core.log, origin)
        if not isinstance(outcome, decider.CommandAccepted):
            assert not isinstance(outcome, Duplicate)  # noqa: S101 - no claim is one
            return outcome
        self._core.metrics.count("agent.task.claim.success.total")
        plan = self._core.knows(plan_id)
        task = plan.tasks.get(task_id) if plan is not None else None
        if plan is None or task is None or task.claimed_sequence != outcome.sequence:
            return NotAllowed("RUNNING", "another owner has taken the task over meanwhile")
        found: dict[int, Raw] = {}
        await self._read_missing(plan, task, found)
        return _granted(plan, task, outcome.sequence, request, found)

    async def _read_and_write(
        self, takings: Sequence[Taking], unread: Sequence[Taking]
    ) -> list[Tried]:
        """Write the claims once what the owner of ``unread`` needs is there.

        When the log does not answer, nothing is claimed for no one.
        """
        read = await self._read_all(unread)
        failed = dict(zip(map(id, unread), read, strict=True))
        written = [each for each in takings if not failed.get(id(each))]
        outcomes = iter(await self._writer.write(written))
        return [failed.get(id(each)) or next(outcomes) for each in takings]

    async def _read_all(self, takings: Sequence[Taking]) -> list[LogUnavailable | None]:
        return await asyncio.gather(*(self._read(each) for each in takings))

    async def _read(self, taking: Taking) -> LogUnavailable | None:
        """Read what the owner needs and memory does not have; None once it is there."""
        try:
            await self._read_missing(taking.plan, taking.task, taking.found)
        except LogUnavailable as error:
            return error
        return None

    async def _read_missing(self, plan: Plan, task: Task, found: dict[int, Raw]) -> None:
        """Add to ``found`` what an owner needs and memory does not have. Raises LogUnavailable."""
        while needed := missing(plan, task, found):
            found.update(await read_back(self._core.log, needed))

    def _give_back(self, taking: Taking, *, lost: bool) -> None:
        self._core.board.places.give_back(taking.pick.seat, self._core.now(), lost=lost)
        if lost:
            self._core.metrics.count("agent.task.claim.conflict.total")

    def _count(self, taken: Sequence[Taking]) -> None:
        metrics = self._core.metrics
        metrics.count("agent.task.claim.success.total", len(taken))
        for lane, number in Counter([each.pick.seat.lane for each in taken]).items():
            metrics.count(f"agent.task.claim.{lane}.count", number)
        fallback = Counter([each.pick.seat.lane for each in taken if each.pick.fallback])
        for lane, number in fallback.items():
            metrics.count(f"agent.task.claim.{lane}.fallback.count", number)
        if reclaimed := sum([each.reclaim for each in taken]):
            metrics.count("agent.task.claim.reclaimed.total", reclaimed)
        metrics.observe(
            "agent.task.claim.execution_attempt", *[each.task.attempt for each in taken]
        )


async def _claims(
    taking: "asyncio.Task[T]", claims_in: Callable[[T], Sequence[Claim]]
) -> Sequence[Claim]:
    return claims_in(await taking)


def _granted_in(answer: Claim | Refused) -> list[Claim]:
    return [answer] if isinstance(answer, Claim) else []


def _granted(
    plan: Plan,
    task: Task,
    sequence: int,
    request: ClaimRequest,
    found: FoundValues,
) -> Claim:
    spec = task.spec
    claimed_at = task.execution.claimed_at if task.execution is not None else plan.created_at
    return Claim(
        plan_id=plan.plan_id,
        task_id=spec.id,
        attempt=task.attempt,
        fencing_token=sequence,
        kind=spec.kind,
        type=spec.type,
        input=spec.input,
        context=plan.spec.context,
        dependencies=dependencies_of(plan, task, found),
        checkpoints=checkpoints_of(task, found),
        feedback=task.feedback,
        retry=task.retry,
        started=request.start,
        lease_until=moment(claimed_at + task.lease_s),
        lease_s=task.lease_s,
        timeout_s=timeout_s(task, request),
        traceparent=of_attempt(plan.traceparent, plan.plan_id, spec.id, task.attempt),
        tracestate=plan.tracestate or UNSET,
    )
