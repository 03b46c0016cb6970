"""The claim desk: who asks for work gets it at once, or as soon as something is claimable.

Waiting requests are served in the order they came, by whoever makes a task claimable (a folded
batch, a timer that fires), so nobody polls in a loop and a single task never wakes a crowd. A slow
poll remains as a safety net; what only it finds is counted as found late.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Protocol

import structlog
from msgspec.structs import replace

from projections.board.board import Board
from projections.board.lanes import Pick
from projections.read_models.views import moment
from service.core.results import Claim, ClaimRequest
from service.signals.metrics.registry import Metrics
from streams import decider
from streams.log import Log, LogFull, LogUnavailable, Origin
from streams.plan import commands
from streams.plan.events import NOTHING
from streams.plan.state import Plan, Task
from streams.traceparent import of_attempt

MAX_WAITING = 10_000
_SHORTEST_SLEEP_S = 0.001

log = structlog.get_logger("holdfast.claims")


class Desk(Protocol):
    """What the desk needs of the core: a view to decide on, and the log to append to."""

    board: Board
    log: Log
    metrics: Metrics
    instance_id: str

    def now(self) -> float:
        """Log time."""
        ...


class _Waiting:
    """One request that found nothing yet."""

    __slots__ = ("future", "request")

    def __init__(self, request: ClaimRequest) -> None:
        self.request = request
        self.future: asyncio.Future[list[Pick]] = asyncio.get_running_loop().create_future()

    @property
    def picks(self) -> list[Pick]:
        """What it was served, if it was."""
        served = self.future.done() and not self.future.cancelled()
        return self.future.result() if served else []


class ClaimDesk:
    """Hands out leases; lives on the API loop."""

    def __init__(self, core: "decider.View", desk: Desk, poll_interval_s: float) -> None:
        self._view = core
        self._desk = desk
        self._poll_interval_s = poll_interval_s
        self._waiting: deque[_Waiting] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def asking(self) -> int:
        """How many requests wait for work now."""
        return len(self._waiting)

    async def claim(self, request: ClaimRequest, origin: Origin) -> list[Claim]:
        """Up to ``request.limit`` leases; waits up to ``wait_s`` while there is nothing.

        Raises LogUnavailable when the log refused every pick.
        """
        metrics = self._desk.metrics
        metrics.count("agent.task.claim.poll.total")
        deadline = asyncio.get_running_loop().time() + request.wait_s
        picks = self._pick(request)
        while True:
            if picks and (claims := await self._take(picks, request, origin)):
                return claims
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0 or self._closed or len(self._waiting) >= MAX_WAITING:
                metrics.count("agent.task.claim.empty.total")
                return []
            picks = self._pick(request) or await self._wait(request, left_s)

    def serve_waiting(self) -> int:
        """Give claimable tasks to those who wait, first come first served; answers how many."""
        served = 0
        nothing_for: set[tuple[str, ...] | None] = set()
        for waiting in list(self._waiting) if self._desk.board.claimable else ():
            kinds = waiting.request.kinds
            if waiting.future.done() or kinds in nothing_for:
                continue
            if picks := self._pick(waiting.request):
                waiting.future.set_result(picks)
                self._waiting.remove(waiting)
                served += len(picks)
            elif kinds is None:
                break
            else:
                nothing_for.add(kinds)
        self._set_alarm()
        return served

    def close(self) -> None:
        """Answer everybody who waits with nothing, and make nobody wait again."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        for waiting in self._waiting:
            if not waiting.future.done():
                waiting.future.set_result([])
        self._waiting.clear()

    async def poll_forever(self) -> None:
        """The safety net: look again every ``poll_interval_s`` whatever happened."""
        while True:
            await asyncio.sleep(self._poll_interval_s)
            if (late := self.serve_waiting()) > 0:
                log.warning("claims_found_late", tasks=late)

    def _pick(self, request: ClaimRequest) -> list[Pick]:
        return self._desk.board.pick(request.limit, request.kinds, self._desk.now())

    async def _wait(self, request: ClaimRequest, wait_s: float) -> list[Pick]:
        waiting = _Waiting(request)
        self._waiting.append(waiting)
        self._set_alarm()
        try:
            async with asyncio.timeout(wait_s):
                return await waiting.future
        except TimeoutError:
            return waiting.picks  # served in the very moment in which the wait ended
        except asyncio.CancelledError:
            self._give_back(waiting.picks)
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiting)

    def _give_back(self, picks: list[Pick]) -> None:
        """Whoever asked has gone: what was picked for them goes back to the lanes."""
        for pick in picks:
            self._desk.board.give_back(pick.seat, self._desk.now())

    def _set_alarm(self) -> None:
        """Wake up when the board's next timer is due, if anybody waits for it."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due = self._desk.board.next_due() if self._waiting and not self._closed else None
        if due is not None:
            wait_s = max(due - self._desk.now(), _SHORTEST_SLEEP_S)
            self._alarm = asyncio.get_running_loop().call_later(wait_s, self._ring)

    def _ring(self) -> None:
        self._desk.board.advance(self._desk.now())
        self.serve_waiting()

    async def _take(self, picks: list[Pick], request: ClaimRequest, origin: Origin) -> list[Claim]:
        if len(picks) == 1:
            outcomes = [await self._take_one(picks[0], request, origin)]
        else:
            taking = (self._take_one(pick, request, origin) for pick in picks)
            try:
                outcomes = await asyncio.gather(*taking)
            except asyncio.CancelledError:
                self._give_back(picks)  # those that had not begun gave nothing back themselves
                raise
        claims = [outcome for outcome in outcomes if isinstance(outcome, Claim)]
        errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if errors and not claims:
            raise errors[0]
        return claims

    async def _take_one(
        self, pick: Pick, request: ClaimRequest, origin: Origin
    ) -> Claim | LogUnavailable | LogFull | None:
        seat = pick.seat
        plan, task = seat.plan, seat.task
        command = commands.Claim(
            plan_id=plan.plan_id,
            task_id=task.spec.id,
            owner=request.owner,
            lease_s=request.lease_s,
        )
        reclaim = task.status == "RUNNING"
        trace = of_attempt(plan.traceparent, plan.plan_id, task.spec.id, task.attempt + 1)
        if not origin.traceparent:  # whoever brings no trace works in the plan's
            origin = replace(origin, traceparent=trace)
        try:
            outcome = await decider.transact(command, self._view, self._desk.log, origin, tries=1)
        except (LogUnavailable, LogFull) as error:
            return error
        finally:
            self._desk.board.give_back(seat, self._desk.now())
        if isinstance(outcome, decider.Accepted):
            self._count(pick, task, reclaim=reclaim)
            return _granted(plan, task, outcome.sequence)
        if isinstance(outcome, decider.Contention):
            self._desk.metrics.count("agent.task.claim.conflict.total")
        return None

    def _count(self, pick: Pick, task: Task, *, reclaim: bool) -> None:
        metrics, lane = self._desk.metrics, pick.seat.lane
        metrics.count("agent.task.claim.success.total")
        metrics.count(f"agent.task.claim.{lane}.count")
        if pick.fallback:
            metrics.count(f"agent.task.claim.{lane}.fallback.count")
        if reclaim:
            metrics.count("agent.task.claim.reclaimed.total")
        metrics.observe("agent.task.claim.execution_attempt", task.attempt)


def _granted(plan: Plan, task: Task, sequence: int) -> Claim:
    spec = task.spec
    claimed_at = task.execution.claimed_at if task.execution is not None else plan.created_at
    dependencies = {
        dependency: plan.tasks[dependency].output if dependency in plan.tasks else NOTHING
        for dependency in spec.depends_on
    }
    return Claim(
        plan_id=plan.plan_id,
        task_id=spec.id,
        attempt=task.attempt,
        fencing_token=sequence,
        kind=spec.kind,
        type=spec.type,
        input=spec.input,
        context=plan.spec.context,
        dependencies=dependencies,
        feedback=task.feedback,
        retry=task.retry,
        lease_until=moment(claimed_at + task.lease_s),
        lease_s=task.lease_s,
        timeout_s=spec.timeout_s,
        traceparent=of_attempt(plan.traceparent, plan.plan_id, spec.id, task.attempt),
    )
