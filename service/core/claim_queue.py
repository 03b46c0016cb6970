"""The claim queue: a worker gets work at once, or as soon as something is claimable.

Waiting requests are served in the order they came, by what makes a task claimable (a folded batch,
a timer that fires), so workers need not poll and a single task wakes a single request. A slow poll
remains as a safety net; what only it finds is counted as found late.
"""

import asyncio
from time import monotonic

import msgspec
import structlog

from projections.board.lanes import Pick, Seat
from service.core.answers import Claim, ClaimRequest
from service.core.claim_inputs import claim_size
from service.core.demand import Demand
from service.core.lease_taking import LeaseTaker
from service.core.queue_context import QueueContext
from service.core.standstill import SILENCE_LIMITS, SilenceLimits, Standstill
from service.core.waiters import Waiters
from service.runtime.pauses import pause_s
from streams.log import Origin

MAX_WAITING = 10_000
ANSWER_BYTES = 8 * 1024 * 1024
FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.25
LEFT_TO_OTHERS_S = 2.0  # since a task is claimable: another instance with room has it by then
LOST_LEASE_SHARE = 0.25  # of a lease: so long it is not offered to the owner that lost it
_SHORTEST_SLEEP_S = 0.001

log = structlog.get_logger("holdfast.claims")


class ClaimQueue:
    """Hands out leases; lives on the API loop."""

    def __init__(
        self,
        core: QueueContext,
        poll_interval_s: float,
        answer_bytes: int = ANSWER_BYTES,
        silence: SilenceLimits = SILENCE_LIMITS,
    ) -> None:
        """``answer_bytes`` ends an answer; one claim is given whatever its size."""
        self._answer_bytes = answer_bytes
        self._core = core
        self._poll_interval_s = poll_interval_s
        self._waiters = Waiters()
        self.leases = LeaseTaker(core, Standstill(silence))
        self.demand = Demand()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False
        self._asks: set[_Ask] = set()

    @property
    def asking(self) -> int:
        """How many requests wait for work now."""
        return len(self._waiters)

    def last_asked(self, kind: str) -> float | None:
        """When a worker last asked this instance for tasks of ``kind`` (log time); None: never."""
        if self._waiters.waits_for(kind):
            return self._core.now()
        return self.demand.last_asked(kind)

    async def claim(self, request: ClaimRequest, origin: Origin) -> list[Claim]:
        """Up to ``request.limit`` leases; waits up to ``wait_s`` while there is nothing.

        Raises LogUnavailable when the log refused every pick, or has not answered lately.
        """
        ask = _Ask(request.owner)
        self._asks.add(ask)
        try:
            metrics = self._core.metrics
            metrics.count("agent.task.claim.poll.total")
            deadline, lost = monotonic() + request.wait_s, 0
            while True:
                now, left_s = self._core.now(), deadline - monotonic()
                self.demand.asked(request.kinds, now)
                picks, _ = self._pick(request, now)
                may_wait = left_s > 0 and not self._closed and len(self._waiters) < MAX_WAITING
                if not picks and may_wait and not ask.is_over:
                    picks = await self._wait(request, left_s)
                if ask.is_over or (request.gone is not None and request.gone()):
                    self._give_back(picks)
                    return []
                if picks and (claims := await self.leases.take(picks, request, origin)):
                    if ask.left:
                        self.leases.release_after_goodbye(claims, request.owner, origin)
                    return [] if ask.is_over else claims
                if not may_wait:
                    self.leases.standstill.complain()
                    metrics.count("agent.task.claim.empty.total")
                    return []
                if picks:
                    lost += 1
                    pause = pause_s(lost, FIRST_PAUSE_S, LONGEST_PAUSE_S)
                    await asyncio.sleep(min(pause, left_s))
        finally:
            self._asks.discard(ask)
            if ask.ended is not None:
                ask.ended.set()

    async def dismiss(self, owner: str) -> None:
        """End what ``owner`` asks for with nothing, and wait for claims that are under way.

        The caller releases what they took.
        """
        asks = self._asks_of(owner)
        for ask in asks:
            ask.is_over, ask.ended = True, ask.ended or asyncio.Event()
        self._wake(owner)
        for ask in asks:
            if ask.ended is not None:
                await ask.ended.wait()

    def dismiss_elsewhere(self, owner: str) -> None:
        """``owner`` has said goodbye to another instance: what it asks for here ends with nothing.

        A claim that is under way is released here, for the other instance may not have seen it.
        """
        for ask in self._asks_of(owner):
            ask.is_over = ask.left = True
        self._wake(owner)

    async def look_again(self, owner: str) -> None:
        """Let each waiting request of ``owner`` see at once that it is gone, if it is."""
        self._wake(owner)

    def _asks_of(self, owner: str) -> "list[_Ask]":
        return [ask for ask in self._asks if ask.owner == owner]

    def _wake(self, owner: str) -> None:
        for waiter in self._waiters.of_owner(owner):
            waiter.serve([])

    def serve_waiting(self, *, all_kinds: bool = False) -> int:
        """Give tasks that came since the last call to the claims that wait, the oldest first.

        With ``all_kinds`` everything that is claimable is offered again. Answers how many tasks
        were given.
        """
        if self.leases.standstill.left_s > 0:
            self._set_alarm()
            return 0
        lanes, now, served = self._core.board.places.lanes, self._core.now(), 0
        nothing_for: set[tuple[str, ...] | None] = set()
        fresh = lanes.take_fresh()
        if all_kinds:  # a claim for one kind must not forget what others wait for
            lanes.looks_at_all()
        for waiter in self._waiters.of(lanes.kinds if all_kinds else fresh):
            kinds = waiter.request.kinds
            if waiter.future.done() or kinds in nothing_for:
                continue
            picks, withheld = self._pick(waiter.request, now)
            if picks:
                waiter.serve(picks)
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
            waiter.serve([])

    async def poll_forever(self) -> None:
        """The safety net: look again every ``poll_interval_s`` whatever happened."""
        while True:
            await asyncio.sleep(self._poll_interval_s)
            if (late := self.serve_waiting(all_kinds=True)) > 0:
                log.warning("claims_found_late", tasks=late)

    def _pick(self, request: ClaimRequest, now: float) -> tuple[list[Pick], bool]:
        """Reserve tasks for the asker, as many as an answer may hold; and whether any is withheld.

        Withheld is what it leaves to others for a moment, or lost itself; while claims stand still,
        everything.
        """
        if self.leases.standstill.left_s > 0:
            return [], True
        board = self._core.board
        offered: list[Pick] = []
        withheld: list[Pick] = []
        # What is withheld stays reserved until the rest has been looked at.
        while picks := board.places.pick(request.limit - len(offered), request.kinds, now):
            for pick in picks:
                until = _withheld_until(pick.seat, request)
                (withheld if until > now else offered).append(pick)
                if until > now:
                    board.places.lanes.look_again(until)
            if len(offered) == request.limit or not withheld:
                break
        if withheld:
            self._give_back(withheld)
        if len(offered) > 1:
            offered = self._in_one_answer(offered)
        return offered, bool(withheld)

    def _in_one_answer(self, picks: list[Pick]) -> list[Pick]:
        """As many as an answer may hold; the others go back."""
        room = self._answer_bytes
        for n, pick in enumerate(picks):
            room -= claim_size(pick.seat.plan, pick.seat.task)
            if room < 0 and n:
                self._give_back(picks[n:])
                return picks[:n]
        return picks

    async def _wait(self, request: ClaimRequest, wait_s: float) -> list[Pick]:
        waiter = self._waiters.add(request)
        self._set_alarm()
        nothing: list[Pick] = []
        end = asyncio.get_running_loop().call_later(wait_s, waiter.serve, nothing)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._give_back(waiter.picks)
            raise
        finally:
            end.cancel()
            self._waiters.remove(waiter)
            self.demand.asked(request.kinds, self._core.now())

    def _give_back(self, picks: list[Pick]) -> None:
        """The client has gone: what was picked for its request goes back to the lanes."""
        for pick in picks:
            self._core.board.places.give_back(pick.seat, self._core.now())

    def _set_alarm(self) -> None:
        """Wake up when something may be claimable next, if a request waits for it."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if not self._waiters or self._closed:
            return
        now, still_s = self._core.now(), self.leases.standstill.left_s
        due = self._core.board.places.next_due()
        if due is None and not still_s:
            return
        wait_s = max(now if due is None else due, now + still_s) - now
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(max(wait_s, _SHORTEST_SLEEP_S), self._ring)

    def _ring(self) -> None:
        self._core.board.places.advance(self._core.now())
        self.serve_waiting(all_kinds=True)


class _Ask(msgspec.Struct, eq=False):
    """A request that is not answered; its owner may say goodbye meanwhile.

    Then it ``is_over``, and nothing may be granted any more. ``ended`` is there when that was said
    here, and set when the request is answered; ``left``: it was said at another instance.
    """

    owner: str
    is_over: bool = False
    ended: asyncio.Event | None = None
    left: bool = False


def _withheld_until(seat: Seat, request: ClaimRequest) -> float:
    """Until when (log time) the task is kept from this asker, so that another gets it."""
    task, until = seat.task, 0.0
    if request.leave_to_others and (seat.plan.plan_id, task.spec.id) in request.leave_to_others:
        until = seat.since + LEFT_TO_OTHERS_S
    if task.owner == request.owner:  # it has just lost this very lease: it may be frozen, or poor
        until = max(until, seat.since + LOST_LEASE_SHARE * task.lease_s)
    return until
