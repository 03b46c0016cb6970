"""Keeps every lease of this process alive, on a thread and loop of its own.

Each lease is renewed every ``heartbeat_s`` (less for a short lease), jittered, many in one call.
A refused renewal means that another owner has the lease: the handler is stopped. When
renewals cannot get through for two thirds of the lease the worker fences itself: the handler is
stopped and nothing more is written, because by then another worker may soon hold the lease.
"""

import asyncio
import random
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Lock
from time import monotonic

import structlog

from service.core.answers import AcceptedWrite, Refused
from service.core.bridge import Bridge, BridgeClosed
from service.executor.attempts.leases import Lease
from service.executor.attempts.reports import Reporter
from service.runtime.supervision import Supervision
from service.signals.audit.trail import Audit
from service.signals.loop_lag import MeasuredLoop
from service.signals.metrics.registry import Metrics
from streams.decider import Contention
from streams.log import LogFull, LogUnavailable, TooLarge
from streams.plan.commands import Heartbeat, OwnerCommand, Progress
from streams.plan.decisions import GuardReject, Invalid
from streams.traceparent import trace_id_of

BATCH = 100
BEATS_PER_LEASE = 3  # a task with a short lease is renewed at least this often
JITTER = 0.2
COALESCE_S = 0.02  # what falls due within this time is sent together
PROGRESS_INTERVAL_S = 0.2
AGAIN_SHARE = 0.25  # of the period: how soon a renewal that failed is tried again
LONGEST_SLEEP_S = 60.0

log = structlog.get_logger("holdfast.executor")

Renewal = Heartbeat | Progress


class Heartbeats:
    """Renews leases and shows progress."""

    def __init__(
        self, bridge: Bridge, reporter: Reporter, metrics: Metrics, audit: Audit, heartbeat_s: float
    ) -> None:
        self._bridge = bridge
        self._reporter = reporter
        self._metrics = metrics
        self._audit = audit
        self._heartbeat_s = heartbeat_s
        self._thread = MeasuredLoop("heartbeats", "heartbeat", metrics)
        self.lag = self._thread.lag
        self._lock = Lock()
        self._schedules: dict[Lease, _Schedule] = {}
        self._wake = asyncio.Event()
        self._wakes_at = 0.0
        self._sending: set[asyncio.Task[None]] = set()
        self._running: Future[None] | None = None

    def start(self, supervision: Supervision) -> None:
        """Begin to renew, watched by ``supervision``."""
        self._thread.start(supervision)
        self._running = self._thread.spawn(self._run())
        supervision.watch("heartbeats, renewing", self._running)

    @property
    def alive(self) -> bool:
        """Whether it still renews."""
        return self._running is not None and not self._running.done()

    async def stop(self) -> None:
        """Renew nothing more."""
        await self._thread.stop()

    def watch(self, lease: Lease) -> None:
        """Keep ``lease`` alive until it is retired or lost. Any thread may ask."""
        schedule = _Schedule(lease, self._heartbeat_s)
        with self._lock:
            self._schedules[lease] = schedule
        self._hurry(schedule.beats_at)  # before it would fence itself

    def forget(self, lease: Lease) -> None:
        """Renew ``lease`` no more."""
        with self._lock:
            self._schedules.pop(lease, None)

    def show(self, lease: Lease) -> None:
        """The lease has progress to show."""
        with self._lock:
            schedule = self._schedules.get(lease)
        if schedule is not None:
            self._hurry(schedule.shows_at)

    def _hurry(self, due_at: float) -> None:
        if due_at < self._wakes_at:
            self._wakes_at = due_at
            self._thread.loop.call_soon_threadsafe(self._wake.set)

    async def _run(self) -> None:
        while True:
            wait_s = self.step(monotonic())
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def step(self, now: float) -> float:
        """Fence what is too old and send what is due at ``now``; seconds until the next step."""
        self._wakes_at = float("inf")  # a lease added meanwhile must wake the loop again
        with self._lock:
            schedules = list(self._schedules.values())
        commands: list[tuple[_Schedule, Renewal]] = []
        for schedule in schedules:
            if schedule.lease.fence_at <= now:
                self._fence(schedule.lease)
            elif command := schedule.command(now + COALESCE_S):
                commands.append((schedule, command))
        for first in range(0, len(commands), BATCH):
            sending = asyncio.get_running_loop().create_task(
                self._send(commands[first : first + BATCH], now)
            )
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
        due_at = min((each.due_at() for each in schedules), default=now + LONGEST_SLEEP_S)
        self._wakes_at = max(due_at, now + COALESCE_S)
        return self._wakes_at - now

    async def _send(self, batch: Sequence[tuple["_Schedule", Renewal]], asked_at: float) -> None:
        commands: list[OwnerCommand] = [command for _, command in batch]
        origin = self._reporter.origin()
        answers: Sequence[AcceptedWrite | Refused | TooLarge | None] = [None] * len(commands)
        try:
            answers = await self._bridge.call(lambda core: core.own_many(commands, origin))
        except (LogUnavailable, LogFull, BridgeClosed) as error:
            log.warning("heartbeats_failed", leases=len(commands), error=str(error))
        finally:
            for (schedule, command), answer in zip(batch, answers, strict=True):
                self._answered(schedule, command, answer, asked_at)

    def _answered(
        self,
        schedule: "_Schedule",
        command: Renewal,
        answer: AcceptedWrite | Refused | TooLarge | None,
        asked_at: float,
    ) -> None:
        lease = schedule.lease
        match answer:
            case AcceptedWrite():
                if isinstance(command, Heartbeat):
                    lease.renewed(asked_at)
                if answer.cancel_requested and lease.stop("plan_failed"):
                    log.info("plan_failed_cancelled", **lease.named)
            case None | Contention():
                schedule.again_soon(command)
            case Invalid() | TooLarge():  # its progress is at fault; the lease is renewed without
                log.warning("progress_refused", **lease.named, answer=repr(answer))
                schedule.again_soon(command)
            case _:
                self._lost(lease, answer)
        lease.owner_write_ended(stored=isinstance(answer, AcceptedWrite | Invalid | TooLarge))

    def _lost(self, lease: Lease, refused: Refused) -> None:
        if not lease.retired and lease.stop("lease_lost"):
            log.warning("lease_lost_cancelled", **lease.named, refused=repr(refused))
            self._tell(lease, refused, "the handler was asked to stop: its lease is lost")
        self.forget(lease)

    def _fence(self, lease: Lease) -> None:
        self.forget(lease)
        if not lease.retired and lease.stop("fenced"):
            self._metrics.count("agent.task.heartbeat.error.total", kind="fenced")
            silent_s = monotonic() - lease.renewed_at
            log.error("worker_fenced", **lease.named, silent_s=silent_s)
            self._tell(lease, None, f"fenced itself: no renewal got through for {silent_s:.1f} s")

    def _tell(self, lease: Lease, refused: Refused | None, detail: str) -> None:
        claim = lease.claim
        holder = {"owner": lease.owner, "attempt": claim.attempt, "sequence": claim.fencing_token}
        self._audit.emit(
            "lease_lost_cancelled",
            **lease.held,
            expected=holder,
            actual=refused.current if isinstance(refused, GuardReject) else None,
            trace_id=trace_id_of(claim.traceparent),
            detail=detail,
        )


class _Schedule:
    """When one lease is to be renewed, and when its progress may be shown next."""

    def __init__(self, lease: Lease, heartbeat_s: float) -> None:
        self.lease = lease
        self._period_s = min(heartbeat_s, lease.claim.lease_s / BEATS_PER_LEASE)
        self.beats_at = lease.claimed_at + self._jittered()
        self.shows_at = 0.0

    def due_at(self) -> float:
        """The next moment at which something may have to be done."""
        due_at = min(self.beats_at, self.lease.fence_at)
        return min(due_at, self.shows_at) if self.lease.has_progress else due_at

    def command(self, now: float) -> Renewal | None:
        """What to send now, if anything."""
        renew = self.beats_at <= now
        if not renew and not (self.lease.has_progress and self.shows_at <= now):
            return None
        command = self.lease.next_command(renew=renew)
        if renew:  # no command: the last one is still on its way
            wait_s = self._period_s * AGAIN_SHARE if command is None else self._jittered()
            self.beats_at = now + wait_s
        self.shows_at = now + PROGRESS_INTERVAL_S
        return command

    def again_soon(self, command: Renewal) -> None:
        """The command was not stored; a renewal is tried again before its next time."""
        if isinstance(command, Heartbeat):
            self.beats_at = monotonic() + self._period_s * AGAIN_SHARE

    def _jittered(self) -> float:
        return self._period_s * (1 - JITTER * random.random())  # noqa: S311 - no secret
