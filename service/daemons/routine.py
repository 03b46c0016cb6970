"""One daemon's ticks, on whichever thread is its home.

Ticks lie on a grid of the daemon's period, each moved by a little chance so that daemons do not
tick together and the period does not drift; they never overlap, and each has a deadline. What a
tick raises is logged, shown by the age of its last success, and tried again at the next tick: a
daemon never dies unseen.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar

import structlog

from service.core.bridge import Bridge
from service.core.core import Core
from service.daemons.daemon import Daemon, DaemonState
from service.signals.loop_lag import MeasuredLoop
from service.signals.metrics.registry import Metrics

T = TypeVar("T")

JITTER = 0.05  # of the period

log = structlog.get_logger("holdfast.daemons")


class Routine:
    """One daemon's life, on whichever thread is its home."""

    def __init__(self, daemon: Daemon, metrics: Metrics) -> None:
        self.daemon = daemon
        self.state = DaemonState(
            name=daemon.name, period_s=daemon.period_s, due_at=monotonic() + daemon.period_s
        )
        self.home: MeasuredLoop | None = None
        self.task: asyncio.Task[Any] | None = None
        self._metrics = metrics
        self._bridge: Bridge | None = None
        self._grid_at = 0.0

    def begin(self, bridge: Bridge) -> None:
        """Spread the first tick over the period."""
        self._bridge = _OneAtATime(bridge, self)
        self._grid_at = monotonic() + self.daemon.period_s * random.random()  # noqa: S311
        self.state.due_at = self._grid_at

    def leave(self) -> None:
        """End here: what runs on a thread that is held is cancelled when that thread runs on."""
        task, self.task = self.task, None
        self.state.began_at = None
        if task is not None and self.home is not None:
            self.home.loop.call_soon_threadsafe(task.cancel)

    @property
    def is_left(self) -> bool:
        """Whether the running task is one that was left behind, so that it must do no more."""
        return self.task is not asyncio.current_task()

    async def repeat(
        self, thread: MeasuredLoop, move_on: Callable[["Routine", MeasuredLoop], None]
    ) -> None:
        """Tick on this thread until the home is another one."""
        self.task = asyncio.current_task()
        while self.home is thread:
            await asyncio.sleep(max(self.state.due_at - monotonic(), 0))
            if self.home is thread:
                await self._tick()
            if self.is_left:
                return
        move_on(self, thread)

    async def _tick(self) -> None:
        state, name = self.state, self.daemon.name
        state.began_at = began_at = monotonic()
        state.last_lateness_s = max(began_at - state.due_at, 0.0)
        self._metrics.observe("agent.daemon.lateness", state.last_lateness_s, daemon=name)
        await self._step()
        if self.is_left:
            return
        now = monotonic()
        self._metrics.observe("agent.daemon.duration", now - began_at, daemon=name)
        self._grid_at += self.daemon.period_s
        if self._grid_at < now:
            state.overruns += 1
            self._metrics.count("agent.daemon.overrun.total", daemon=name)
            missed = (now - self._grid_at) // self.daemon.period_s + 1
            self._grid_at += missed * self.daemon.period_s
        jitter_s = self.daemon.period_s * JITTER * random.random()  # noqa: S311 - no secret
        state.due_at = self._grid_at + jitter_s
        state.began_at = None

    async def _step(self) -> None:
        bridge, deadline_s = self._bridge, self.daemon.deadline_s
        if bridge is None:
            raise RuntimeError("the daemon has not begun")
        deadline = asyncio.timeout(deadline_s)
        try:
            async with deadline:
                await self.daemon.step(bridge)
        except TimeoutError as error:
            late = deadline.expired()
            self._failed(f"it took longer than {deadline_s:g} s" if late else repr(error), late)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next tick tries again
            self._failed(str(error) or repr(error), missed_deadline=False)
        else:
            self._succeeded()

    def _failed(self, error: str, missed_deadline: bool) -> None:  # noqa: FBT001
        state = self.state
        if state.error is None:
            log.warning("daemon_failed", daemon=self.daemon.name, error=error)
            state.fails_since = monotonic()
        state.error, state.missed_deadline = error, missed_deadline

    def _succeeded(self) -> None:
        state = self.state
        if state.error is not None:
            log.info("daemon_recovered", daemon=self.daemon.name)
        state.error, state.missed_deadline, state.fails_since = None, False, None
        state.last_success_at = time.time()
        self._metrics.set(
            "agent.daemon.last_success_timestamp", state.last_success_at, daemon=self.daemon.name
        )


class _OneAtATime(Bridge):
    """A daemon's own way to the core: what it asked from a thread it was taken from ends first."""

    def __init__(self, bridge: Bridge, routine: Routine) -> None:
        self._bridge = bridge
        self._routine = routine
        self._turn = asyncio.Lock()  # used on the core's loop only

    async def call(self, action: Callable[[Core], Awaitable[T]]) -> T:
        """See `Bridge.call`."""

        async def in_turn(core: Core) -> T:
            async with self._turn:
                return await action(core)

        answer = await self._bridge.call(in_turn)
        if self._routine.is_left:
            raise asyncio.CancelledError
        return answer
