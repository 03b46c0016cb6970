"""Claims what there is room for and sends it into the pool: one dispatcher per thread and loop."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from time import monotonic

import msgspec
import structlog
from msgspec.structs import replace

from holdfast_worker.handler import AnyHandler
from service.core.answers import Claim, ClaimRequest
from service.core.bridge import Bridge, BridgeClosed
from service.executor.attempts.attempt import Attempt, Workshop, release
from service.executor.attempts.leases import Lease
from service.executor.running.calls import HandlerRunner
from service.executor.running.pool import WorkerPool
from service.runtime.supervision import Supervision
from service.settings.config import ClaimSettings
from service.signals.metrics.facts import DISPATCH_REJECTED
from streams.log import LogFull, LogUnavailable
from streams.traceparent import trace_id_of

LONGEST_WAIT_S = 30.0  # what the core allows a claim to wait
GATHER_S = 0.01  # how long the next claim waits at most for the tasks of the last one to end

log = structlog.get_logger("holdfast.executor")


class GrantedAt(msgspec.Struct, frozen=True):
    """A claim's answer, what the log's clock showed then, and the most that a claim can be old."""

    claims: list[Claim]
    now: float
    waited_s: float = float("inf")


class Dispatcher:
    """Ticks: free slots → claim → dispatch. Lives on one loop with a pool of its own."""

    def __init__(
        self,
        bridge: Bridge,
        workshop: Workshop,
        handlers: Mapping[str, AnyHandler],
        pool: WorkerPool,
        runner: HandlerRunner,
        claim: ClaimSettings,
        poll_interval_s: float,
    ) -> None:
        self.pool = pool
        self.runner = runner
        self._bridge = bridge
        self._shop = workshop
        self._handlers = handlers
        self._kinds = tuple(sorted(handlers))
        self._settings = claim
        self._poll_interval_s = poll_interval_s
        self._attempts: dict[Lease, asyncio.Task[None]] = {}
        self._releases: set[asyncio.Task[object]] = set()
        self._ticking: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether it still ticks."""
        return self._ticking is not None and not self._ticking.done()

    def start(self, name: str, supervision: Supervision) -> None:
        """Begin to tick on the running loop, watched by ``supervision`` under ``name``."""
        self._ticking = asyncio.get_running_loop().create_task(self._run())
        supervision.watch(name, self._ticking)

    async def drain(self, until: float, give_up_at: float) -> None:
        """Claim no more; at ``until`` stop what still runs, at ``give_up_at`` wait no longer.

        Both are monotonic.
        """
        self.pool.close()
        with suppress(BridgeClosed):  # a claim that waits sees that the pool is closed
            owner = self._shop.reporter.owner
            await self._bridge.call(lambda core: core.claim_queue.look_again(owner))
        if self._ticking is not None:
            await asyncio.wait({self._ticking}, timeout=max(give_up_at - monotonic(), 0))
        if not await self._ended(until):
            for lease in list(self._attempts):
                lease.stop("draining")
            if not await self._ended(give_up_at):
                log.warning("drain_incomplete", left=len(self._attempts))
        await self.runner.close()

    async def _ended(self, until: float) -> bool:
        waiting = {*self._attempts.values(), *self._releases}
        if waiting:
            await asyncio.wait(waiting, timeout=max(until - monotonic(), 0))
        return not self._attempts and not self._releases

    async def _run(self) -> None:
        while True:
            await self.pool.room()
            await self.runner.ready()
            if self.pool.closed:
                return
            if not self.runner.is_ready:
                continue
            try:
                await self.tick()
            except BridgeClosed:
                return
            except (LogUnavailable, LogFull) as error:
                log.warning("claim_failed", error=str(error))
                await asyncio.sleep(self._poll_interval_s * (0.5 + random.random()))  # noqa: S311

    async def tick(self) -> int:
        """Claim and dispatch until slots, work or ``max_per_tick`` run out; answers how many."""
        taken = 0
        batch = self._settings.batch_size
        while taken < self._settings.max_per_tick and (free := await self._free()):
            most = min(batch, self._settings.max_per_tick - taken)
            if taken and most < min(free, batch):
                break  # the next tick claims for all of them: small claims cost the log more
            # Only the first claim of a tick may wait: with work in hand there is no time for it.
            wait_s = min(self._poll_interval_s, LONGEST_WAIT_S) if not taken else 0
            # A task that gets a thread at once starts with its claim; one that waits for a thread
            # starts when it has one.
            idle = self.pool.idle
            asked = self.pool.reserve(min(most, idle) if idle else most)
            granted = await self._claim(asked, wait_s, start=idle > 0)
            self._dispatch_all(granted)
            taken += len(granted.claims)
            if len(granted.claims) < asked:
                break
        return taken

    async def _free(self) -> int:
        """How many tasks may be claimed, once those that end together have ended."""
        await self.pool.gathered()
        return self.pool.free

    async def _claim(self, limit: int, wait_s: float, *, start: bool) -> GrantedAt:
        """Ask for work. Slots that nothing came for are given back; the others are the claims'."""
        request = ClaimRequest(
            owner=self._shop.reporter.owner,
            limit=limit,
            kinds=self._kinds,
            default_lease_s=self._settings.lease_s,
            default_timeout_s=self._shop.timeout_s,
            wait_s=wait_s,
            start=start,
            leave_to_others=self._shop.overruns,
            gone=lambda: self.pool.closed,
        )
        origin, asked_at = self._shop.reporter.origin(), monotonic()
        used = 0
        try:
            granted = await self._bridge.call(
                lambda core: _granted(core.claim(request, origin), core.stream_now)
            )
            used = len(granted.claims)
        finally:
            self.pool.give_back(limit - used)
        return replace(granted, waited_s=monotonic() - asked_at)

    def _dispatch_all(self, granted: GrantedAt) -> None:
        accepted = sum(self._dispatch(claim, granted) for claim in granted.claims)
        if accepted:
            self._shop.metrics.count("agent.task.dispatch.success.total", accepted)
            # Never longer than the claim took: where claims are quick, waiting gains nothing.
            self.pool.came(accepted, min(granted.waited_s, GATHER_S))

    def _dispatch(self, claim: Claim, granted: GrantedAt) -> bool:
        """Send a claim into the pool, or release it at once when the pool refuses it."""
        age_s = max(granted.now - (claim.lease_until.timestamp() - claim.lease_s), 0.0)
        age_s = min(age_s, granted.waited_s)  # whatever is done to the log's clock
        lease = Lease(claim, self._shop.reporter.owner, monotonic() - age_s)
        handler = self._handlers.get(claim.kind)
        if self.pool.closed:
            self._reject(lease, "draining")
        elif handler is None:
            self._reject(lease, "no_handler")
        elif self.pool.overdrawn:
            self._reject(lease, "full")
        else:
            self._accept(lease, handler)
            return True
        return False

    def _accept(self, lease: Lease, handler: AnyHandler) -> None:
        if self._shop.audit.wants("dispatch_submitted"):
            self._tell("dispatch_submitted", lease, f"kind {lease.claim.kind}")
        attempt = Attempt(lease, handler, self.pool.admit(), self.runner, self._shop)
        task = asyncio.get_running_loop().create_task(attempt.run())
        self._attempts[lease] = task
        task.add_done_callback(lambda _: self._attempts.pop(lease))

    def _reject(self, lease: Lease, reason: str) -> None:
        self.pool.give_back(1)
        self._shop.metrics.count("agent.task.dispatch.reject.total", reason=reason)
        log.warning("dispatch_rejected", task=lease.key, reason=reason)
        self._tell("dispatch_rejected", lease, f"{reason}; the claim is released")
        task = asyncio.get_running_loop().create_task(
            release(self._shop.reporter, lease, f"{DISPATCH_REJECTED}: {reason}")
        )
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    def _tell(self, event: str, lease: Lease, detail: str) -> None:
        self._shop.audit.emit(
            event,
            **lease.held,
            actual={"sequence": lease.claim.fencing_token},
            trace_id=trace_id_of(lease.claim.traceparent),
            detail=detail,
        )


async def _granted(claiming: Awaitable[list[Claim]], now: Callable[[], float]) -> GrantedAt:
    return GrantedAt(await claiming, now())
