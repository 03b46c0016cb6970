"""The claim queue: a worker gets work at once, or as soon as something is claimable.

Waiting requests are served in the order they came, by what makes a task claimable (a folded batch,
a timer that fires), so workers need not poll and a single task wakes a single request. A slow poll
remains as a safety net; what only it finds is counted as found late.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

import structlog
from msgspec import UNSET, Raw
from msgspec.structs import replace

from projections.board.board import Board
from projections.board.lanes import Pick, Seat
from projections.read_models.views import moment
from service.core.claim_inputs import (
    Found,
    checkpoints_of,
    claim_size,
    dependencies_of,
    missing,
    read_back,
)
from service.core.demand import Demand
from service.core.results import Claim, ClaimRequest, OwnerAnswer, Refused
from service.core.waiters import Waiters
from service.signals.metrics.registry import Metrics
from streams import decider
from streams.log import Log, LogFull, LogUnavailable, Origin
from streams.plan import commands
from streams.plan.commands import OwnerCommand
from streams.plan.decide import Duplicate, NotAllowed
from streams.plan.state import Plan, Task
from streams.traceparent import of_attempt

MAX_WAITING = 10_000
ANSWER_BYTES = 8 * 1024 * 1024
FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.25
LEFT_TO_OTHERS_S = (
    2.0  # from when a task is claimable: another instance with room has taken it by then
)
LOST_LEASE_SHARE = 0.25  # of a lease: so long it is not offered to the owner that lost it
ABANDONED = "the client that claimed the task closed the connection before the answer"
ONE_TRY = decider.DecideLimits(tries=1)  # another task may be claimed instead
_SHORTEST_SLEEP_S = 0.001

log = structlog.get_logger("holdfast.claims")


class QueueContext(Protocol):
    """What the queue needs of the core: a view to decide on, and the log to append to."""

    board: Board
    log: Log
    metrics: Metrics
    instance_id: str

    def now(self) -> float:
        """Log time."""
        ...

    async def own(self, command: OwnerCommand, origin: Origin) -> OwnerAnswer | Refused:
        """Carry out an owner's command. Raises LogUnavailable."""
        ...


class ClaimQueue:
    """Hands out leases; lives on the API loop."""

    def __init__(
        self,
        core: "decider.View",
        context: QueueContext,
        poll_interval_s: float,
        answer_bytes: int = ANSWER_BYTES,
    ) -> None:
        """``answer_bytes`` ends an answer; one claim is given whatever its size."""
        self._view = core
        self._answer_bytes = answer_bytes
        self._context = context
        self._poll_interval_s = poll_interval_s
        self._waiters = Waiters()
        self.demand = Demand()
        self._alarm: asyncio.TimerHandle | None = None
        self._releasing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._asks: dict[str, set[_Ask]] = {}

    @property
    def asking(self) -> int:
        """How many requests wait for work now."""
        return len(self._waiters)

    def last_asked(self, kind: str) -> float | None:
        """When a worker last asked this instance for tasks of ``kind`` (log time); None: never."""
        if self._waiters.waits_for(kind):
            return self._context.now()
        return self.demand.last_asked(kind)

    async def claim(self, request: ClaimRequest, origin: Origin) -> list[Claim]:
        """Up to ``request.limit`` leases; waits up to ``wait_s`` while there is nothing.

        Raises LogUnavailable when the log refused every pick.
        """
        ask = _Ask()
        asks = self._asks.setdefault(request.owner, set())
        asks.add(ask)
        try:
            return await self._claim(request, origin, ask)
        finally:
            asks.discard(ask)
            if not asks and self._asks.get(request.owner) is asks:
                del self._asks[request.owner]
            if ask.ended is not None:
                ask.ended.set()

    async def dismiss(self, owner: str) -> None:
        """End what ``owner`` asks for with nothing, and wait for claims that are under way."""
        asks = list(self._asks.get(owner, ()))
        for ask in asks:
            ask.ended = ask.ended or asyncio.Event()
        for waiter in self._waiters.of_owner(owner):
            if not waiter.future.done():
                waiter.future.set_result([])
        for ask in asks:
            if ask.ended is not None:
                await ask.ended.wait()

    async def _claim(self, request: ClaimRequest, origin: Origin, ask: "_Ask") -> list[Claim]:
        metrics = self._context.metrics
        metrics.count("agent.task.claim.poll.total")
        deadline = asyncio.get_running_loop().time() + request.wait_s
        self.demand.asked(request.kinds, self._context.now())
        (picks, _), lost = self._pick(request), 0
        while True:
            if ask.ended is not None or (request.gone is not None and request.gone()):
                self._give_back(picks)
                return []
            if picks and (claims := await self._take_wholly(picks, request, origin)):
                return claims if ask.ended is None else []  # a goodbye releases them
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0 or self._closed or len(self._waiters) >= MAX_WAITING:
                metrics.count("agent.task.claim.empty.total")
                return []
            if picks:
                lost += 1
                await asyncio.sleep(min(_pause_s(lost), left_s))
            picks = self._pick(request)[0] or await self._wait(request, left_s)

    def serve_waiting(self, *, all_kinds: bool = False) -> int:
        """Give tasks that came since the last call to the claims that wait, the oldest first.

        With ``all_kinds`` everything that is claimable is offered again. Answers how many tasks
        were given.
        """
        lanes, served = self._context.board.lanes, 0
        nothing_for: set[tuple[str, ...] | None] = set()
        fresh = lanes.take_fresh()
        for waiter in self._waiters.of(lanes.kinds if all_kinds else fresh):
            kinds = waiter.request.kinds
            if waiter.future.done() or kinds in nothing_for or not lanes.offers(kinds):
                continue
            picks, withheld = self._pick(waiter.request)
            if picks:
                waiter.future.set_result(picks)
                self._waiters.remove(waiter)
                served += len(picks)
            elif not withheld:  # else there may be something for another
                nothing_for.add(kinds)
        self._set_alarm()
        return served

    def close(self) -> None:
        """Answer each waiting request with nothing; later requests do not wait."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        for waiter in self._waiters.clear():
            if not waiter.future.done():
                waiter.future.set_result([])

    async def poll_forever(self) -> None:
        """The safety net: look again every ``poll_interval_s`` whatever happened."""
        while True:
            await asyncio.sleep(self._poll_interval_s)
            if (late := self.serve_waiting(all_kinds=True)) > 0:
                log.warning("claims_found_late", tasks=late)

    def _pick(self, request: ClaimRequest) -> tuple[list[Pick], bool]:
        """Reserve tasks for the asker, as many as an answer may hold; and whether any is withheld.

        Withheld is what it leaves to others for a moment, or lost itself.
        """
        picks, withheld = self._offered(request)
        room = self._answer_bytes
        for n, pick in enumerate(picks):
            room -= claim_size(pick.seat.plan, pick.seat.task)
            if room < 0 and n:
                self._give_back(picks[n:])
                return picks[:n], withheld
        return picks, withheld

    def _offered(self, request: ClaimRequest) -> tuple[list[Pick], bool]:
        board, now = self._context.board, self._context.now()
        offered, withheld = list[Pick](), list[Pick]()
        # What is withheld stays reserved until the rest has been looked at.
        while picks := board.pick(request.limit - len(offered), request.kinds, now):
            for pick in picks:
                until = _withheld_until(pick.seat, request)
                (withheld if until > now else offered).append(pick)
                if until > now:
                    board.lanes.look_again(until)
            if len(offered) == request.limit or not withheld:
                break
        self._give_back(withheld)
        return offered, bool(withheld)

    async def _wait(self, request: ClaimRequest, wait_s: float) -> list[Pick]:
        waiter = self._waiters.add(request)
        self._set_alarm()
        try:
            async with asyncio.timeout(wait_s):
                return await waiter.future
        except TimeoutError:
            return waiter.picks  # served in the very moment in which the wait ended
        except asyncio.CancelledError:
            self._give_back(waiter.picks)
            raise
        finally:
            self._waiters.remove(waiter)
            self.demand.asked(request.kinds, self._context.now())

    def _give_back(self, picks: list[Pick]) -> None:
        """The client has gone: what was picked for its request goes back to the lanes."""
        for pick in picks:
            self._context.board.give_back(pick.seat, self._context.now())

    def _set_alarm(self) -> None:
        """Wake up when the board's next timer is due, if a request waits for it."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due = self._context.board.next_due() if self._waiters and not self._closed else None
        if due is not None:
            wait_s = max(due - self._context.now(), _SHORTEST_SLEEP_S)
            self._alarm = asyncio.get_running_loop().call_later(wait_s, self._ring)

    def _ring(self) -> None:
        self._context.board.advance(self._context.now())
        self.serve_waiting(all_kinds=True)

    async def _take_wholly(
        self, picks: list[Pick], request: ClaimRequest, origin: Origin
    ) -> list[Claim]:
        """Take leases; when the asker goes meanwhile, they are released as soon as they are known.

        An append that is cancelled may be stored all the same, so it is never cancelled.
        """
        taking = asyncio.create_task(self._take(picks, request, origin), name="claim")
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            release = asyncio.create_task(self._release(taking, request, origin))
            self._releasing.add(release)
            release.add_done_callback(self._releasing.discard)
            raise

    async def _release(
        self, taking: "asyncio.Task[list[Claim]]", request: ClaimRequest, origin: Origin
    ) -> None:
        """Give back the leases of an asker that has gone."""
        try:
            claims = await taking
            await self.abandon(claims, request.owner, origin)
        except (LogUnavailable, LogFull) as error:
            log.warning("claims_not_released", owner=request.owner, error=str(error))

    async def abandon(self, claims: Sequence[Claim], owner: str, origin: Origin) -> None:
        """Release leases that were granted and could not be delivered. Raises LogUnavailable."""
        for claim in claims:
            log.info("claim_abandoned", plan_id=claim.plan_id, task_id=claim.task_id, owner=owner)
            command = commands.Release(
                plan_id=claim.plan_id,
                task_id=claim.task_id,
                owner=owner,
                attempt=claim.attempt,
                reason=ABANDONED,
            )
            await self._context.own(command, replace(origin, traceparent=claim.traceparent))

    async def _take(self, picks: list[Pick], request: ClaimRequest, origin: Origin) -> list[Claim]:
        if len(picks) == 1:
            outcomes = [await self._take_one(picks[0], request, origin)]
        else:
            taking = (self._take_one(pick, request, origin) for pick in picks)
            outcomes = await asyncio.gather(*taking)
        claims = [outcome for outcome in outcomes if isinstance(outcome, Claim)]
        errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if errors and not claims:
            raise errors[0]
        return claims

    async def claim_chosen(
        self, plan_id: str, task_id: str, request: ClaimRequest, origin: Origin
    ) -> Claim | Refused:
        """The lease of one task that the owner chose, if it is claimable now.

        Raises LogUnavailable, LogFull.
        """
        plan = await self._view.load(plan_id)
        task = plan.tasks.get(task_id) if plan is not None else None
        command = commands.Claim(
            plan_id=plan_id,
            task_id=task_id,
            owner=request.owner,
            lease_s=request.lease_s,
            start=request.start,
            timeout_s=request.default_timeout_s if task is None else _timeout_s(task, request),
            chosen=True,
        )
        if plan is not None and task is not None and not origin.traceparent:
            trace = of_attempt(plan.traceparent, plan_id, task_id, task.attempt + 1)
            origin = replace(origin, traceparent=trace)
        outcome = await decider.transact(command, self._view, self._context.log, origin)
        if not isinstance(outcome, decider.CommandAccepted):
            assert not isinstance(outcome, Duplicate)  # noqa: S101 - no claim is one
            return outcome
        self._context.metrics.count("agent.task.claim.success.total")
        plan = self._view.knows(plan_id)
        task = plan.tasks.get(task_id) if plan is not None else None
        if plan is None or task is None or task.claimed_sequence != outcome.sequence:
            return NotAllowed("RUNNING", "another owner has taken the task over meanwhile")
        found = dict[int, Raw]()
        while needed := missing(plan, task, found):
            found |= await read_back(self._context.log, needed)
        return _granted(plan, task, outcome.sequence, request, found)

    async def _take_one(
        self, pick: Pick, request: ClaimRequest, origin: Origin
    ) -> Claim | LogUnavailable | LogFull | None:
        seat = pick.seat
        plan, task = seat.plan, seat.task
        command = commands.Claim(
            plan_id=plan.plan_id,
            task_id=task.spec.id,
            owner=request.owner,
            lease_s=request.lease_s or task.spec.lease_s or request.default_lease_s,
            start=request.start,
            timeout_s=_timeout_s(task, request) if request.bounded else None,
        )
        reclaim, attempt = task.status == "RUNNING", task.attempt + 1
        trace = of_attempt(plan.traceparent, plan.plan_id, task.spec.id, attempt)
        if not origin.traceparent:  # a request without a trace joins the plan's
            origin = replace(origin, traceparent=trace)
        lost, found = False, dict[int, Raw]()
        began_at = asyncio.get_running_loop().time()
        try:
            # Before the claim: when the log does not answer, nothing is claimed in vain.
            if needed := missing(plan, task, found):
                found = await read_back(self._context.log, needed)
            outcome = await decider.transact(
                command, self._view, self._context.log, origin, ONE_TRY
            )
            lost = isinstance(outcome, decider.Contention)
        except (LogUnavailable, LogFull) as error:
            return error
        finally:
            self._context.board.lanes.took(asyncio.get_running_loop().time() - began_at)
            self._context.board.give_back(seat, self._context.now(), lost=lost)
        if lost:
            self._context.metrics.count("agent.task.claim.conflict.total")
        if not isinstance(outcome, decider.CommandAccepted):
            return None
        self._count(pick, task, reclaim=reclaim)
        # Another instance may have reclaimed the task while this one did not run for a lease.
        if task.claimed_sequence != outcome.sequence:
            return None
        try:
            # A dependency may have been accepted anew, or have left memory meanwhile.
            while needed := missing(plan, task, found):
                found |= await read_back(self._context.log, needed)
        except LogUnavailable as error:
            return error
        return _granted(plan, task, outcome.sequence, request, found)

    def _count(self, pick: Pick, task: Task, *, reclaim: bool) -> None:
        metrics, lane = self._context.metrics, pick.seat.lane
        metrics.count("agent.task.claim.success.total")
        metrics.count(f"agent.task.claim.{lane}.count")
        if pick.fallback:
            metrics.count(f"agent.task.claim.{lane}.fallback.count")
        if reclaim:
            metrics.count("agent.task.claim.reclaimed.total")
        metrics.observe("agent.task.claim.execution_attempt", task.attempt)


class _Ask:
    """A request that is not answered; ``ended`` is set when its owner has said goodbye."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended: asyncio.Event | None = None


def _withheld_until(seat: Seat, request: ClaimRequest) -> float:
    """Until when (log time) the task is kept from this asker, so that another gets it."""
    task, until = seat.task, 0.0
    if request.leave_to_others and (seat.plan.plan_id, task.spec.id) in request.leave_to_others:
        until = seat.since + LEFT_TO_OTHERS_S
    if task.owner == request.owner:  # it has just lost this very lease: it may be frozen, or poor
        until = max(until, seat.since + LOST_LEASE_SHARE * task.lease_s)
    return until


def _pause_s(lost: int) -> float:
    """How long to wait after ``lost`` rounds in which every claim was lost."""
    return random.uniform(0.5, 1) * min(FIRST_PAUSE_S * 2.0 ** (lost - 1), LONGEST_PAUSE_S)  # noqa: S311


def _timeout_s(task: Task, request: ClaimRequest) -> float:
    return task.spec.timeout_s or request.default_timeout_s


def _granted(
    plan: Plan,
    task: Task,
    sequence: int,
    request: ClaimRequest,
    found: Found,
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
        timeout_s=_timeout_s(task, request),
        traceparent=of_attempt(plan.traceparent, plan.plan_id, spec.id, task.attempt),
        tracestate=plan.tracestate or UNSET,
    )
