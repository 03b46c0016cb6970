"""Runs daemons on threads and loops of their own, so that none can delay another or the API.

A daemon is a step, repeated. Its ticks never overlap, each has a deadline, and the first one is
spread over the period so that daemons do not march in step. What a tick raises is logged, counted
by the age of its last success, and tried again at the next tick: a daemon never dies unseen.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from service.door import Door
from service.loops import LoopThread
from service.metrics import Metrics

STALE_PERIODS = 3.0  # a daemon without a success for this many periods (and the grace) is late
GRACE_S = 2.0

log = structlog.get_logger("holdfast.daemons")


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """A named step and how often it is taken; one tick may last ``deadline_s`` at most."""

    name: str
    period_s: float
    step: Callable[[Door], Awaitable[None]]
    deadline_s: float = 10.0


class DaemonState(msgspec.Struct, kw_only=True):
    """How a daemon is doing; times are seconds on this machine's wall clock since the epoch."""

    name: str
    period_s: float
    last_success_at: float | None = None
    lateness_s: float = 0.0
    overruns: int = 0
    error: str | None = None

    def is_late(self, now: float, started_at: float) -> bool:
        """Whether it has not succeeded for longer than it may."""
        since = self.last_success_at or started_at
        return now - since > self.period_s * STALE_PERIODS + GRACE_S


class Schedulers:
    """The pool of daemon threads; daemons are dealt to them in turn."""

    def __init__(self, daemons: Sequence[Daemon], pool_size: int, metrics: Metrics) -> None:
        threads = min(pool_size, len(daemons))
        self.threads = [LoopThread(f"daemons-{n}", "daemon", metrics) for n in range(threads)]
        self._daemons = daemons
        self._metrics = metrics
        self._started_at = time.time()
        self.states = [DaemonState(name=each.name, period_s=each.period_s) for each in daemons]

    def start(self, door: Door) -> None:
        """Begin to tick."""
        self._started_at = time.time()
        for thread in self.threads:
            thread.start()
        for n, (daemon, state) in enumerate(zip(self._daemons, self.states, strict=True)):
            self.threads[n % len(self.threads)].spawn(self._repeat(daemon, state, door))

    async def stop(self) -> None:
        """End every thread; ticks under way are cancelled."""
        await asyncio.gather(*(thread.stop() for thread in self.threads))

    def state_of(self, name: str) -> DaemonState:
        """One daemon's state; KeyError if there is no such daemon."""
        return {state.name: state for state in self.states}[name]

    def late(self) -> list[DaemonState]:
        """The daemons that have not succeeded for too long."""
        now = time.time()
        return [state for state in self.states if state.is_late(now, self._started_at)]

    async def _repeat(self, daemon: Daemon, state: DaemonState, door: Door) -> None:
        clock = asyncio.get_running_loop().time
        due = clock() + daemon.period_s * random.random()  # noqa: S311 - spreads ticks, no secret
        while True:
            await asyncio.sleep(max(due - clock(), 0))
            state.lateness_s = max(clock() - due, 0.0)
            self._metrics.observe("agent.daemon.lateness", state.lateness_s, daemon=daemon.name)
            began = clock()
            await self._tick(daemon, state, door)
            self._metrics.observe("agent.daemon.duration", clock() - began, daemon=daemon.name)
            due += daemon.period_s
            if due < clock():
                state.overruns += 1
                self._metrics.count("agent.daemon.overrun.total", daemon=daemon.name)
                due = clock() + daemon.period_s

    async def _tick(self, daemon: Daemon, state: DaemonState, door: Door) -> None:
        try:
            async with asyncio.timeout(daemon.deadline_s):
                await daemon.step(door)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next tick tries again
            if state.error is None:
                log.warning("daemon_failed", daemon=daemon.name, error=repr(error))
            state.error = repr(error)
            return
        if state.error is not None:
            log.info("daemon_recovered", daemon=daemon.name)
        state.error = None
        state.last_success_at = time.time()
        self._metrics.set(
            "agent.daemon.last_success_timestamp", state.last_success_at, daemon=daemon.name
        )
