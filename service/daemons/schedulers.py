"""Runs daemons on threads and loops of their own, so that none can delay another or the API.

A daemon is a step, repeated. Its ticks lie on a grid of its period, each moved by a little chance
so that daemons do not march in step and the period does not drift; they never overlap, and each
has a deadline. What a tick raises is logged, shown by the age of its last success, and tried again
at the next tick: a daemon never dies unseen.

Daemons share threads, so one that holds its thread (it sleeps, computes or reads without awaiting)
would stop the others there. A guard outside sees that and moves the others to a fresh thread; the
one that holds goes on there, too, once it returns. So there are never more threads than the pool
has and daemons that hold one.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, TypeVar

import msgspec
import structlog

from service.core.bridge import Bridge
from service.core.core import Core
from service.runtime.supervision import Supervision
from service.signals.loop_lag import Lag, MeasuredLoop
from service.signals.metrics.registry import Metrics

T = TypeVar("T")

FAILING_PERIODS = 3.0  # a daemon that fails for this many periods (and the grace) is in trouble
GRACE_S = 2.0
JITTER = 0.05  # of the period
GUARD_EVERY_S = 0.05
HOLDS_S = 0.3  # a thread held by a daemon for longer is taken from the others' way

log = structlog.get_logger("holdfast.daemons")


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """A named step and how often it is taken.

    One tick may last ``deadline_s`` at most and is called stuck after ``stuck_s``. What a
    ``probe`` finds wrong is reported by the check of what it probes, so its failure is no trouble
    of its own.
    """

    name: str
    period_s: float
    step: Callable[[Bridge], Awaitable[None]]
    deadline_s: float = 10.0
    stuck_s: float = 1.5
    probe: bool = False


def on_core(
    step: Callable[[Core], Coroutine[Any, Any, None]],
) -> Callable[[Bridge], Awaitable[None]]:
    """The step of a daemon that is taken on the core's loop."""

    async def through(bridge: Bridge) -> None:
        await bridge.call(step)

    return through


class DaemonState(msgspec.Struct, kw_only=True):
    """How a daemon is doing.

    ``last_success_at`` is wall clock since the epoch, ``due_at``, ``began_at`` (None between ticks)
    and ``fails_since`` are monotonic.
    """

    name: str
    period_s: float
    due_at: float
    last_success_at: float | None = None
    last_lateness_s: float = 0.0
    overruns: int = 0
    error: str | None = None
    began_at: float | None = None
    fails_since: float | None = None
    missed_deadline: bool = False
    holds: bool = False

    @property
    def lateness_s(self) -> float:
        """How late the last tick began, or by how much the next one is overdue if that is more."""
        overdue_s = 0.0 if self.began_at is not None else monotonic() - self.due_at
        return max(self.last_lateness_s, overdue_s)

    def trouble(self, daemon: Daemon) -> str | None:
        """Why it does not do its work now; None when it does."""
        now = monotonic()
        if self.began_at is not None and now - self.began_at > daemon.stuck_s:
            how = "holds its thread" if self.holds else "stuck in one tick"
            return f"{how} for {now - self.began_at:.1f} s"
        if self.missed_deadline:
            return self.error
        patience_s = self.period_s * FAILING_PERIODS + GRACE_S
        if self.fails_since is not None and now - self.fails_since > patience_s:
            return None if daemon.probe else self.error
        if self.began_at is None and now - self.due_at > self.period_s + GRACE_S:
            return f"its tick is {now - self.due_at:.1f} s overdue"
        return None


class Schedulers:
    """The pool of daemon threads; daemons are dealt to them in turn.

    ``replaced`` counts the threads that a daemon held and that the others were taken from.
    """

    def __init__(
        self,
        daemons: Sequence[Daemon],
        pool_size: int,
        metrics: Metrics,
        supervision: Supervision | None = None,
    ) -> None:
        self._metrics = metrics
        self._supervision = supervision or Supervision()
        self.replaced = 0
        self._made = 0
        self._threads = [self._new_thread() for _ in range(min(pool_size, len(daemons)))]
        self.routines = [_Routine(daemon, metrics) for daemon in daemons]
        self._lock = Lock()
        self._ended = Event()
        self._guard = Thread(target=self._guard_threads, name="daemons-guard", daemon=True)

    def start(self, bridge: Bridge) -> None:
        """Begin to tick."""
        for thread in self._threads:
            thread.start(self._supervision)
        for n, routine in enumerate(self.routines):
            routine.begin(bridge)
            self._settle(routine, self._threads[n % len(self._threads)])
        self._guard.start()
        self._supervision.watch_thread(self._guard)

    async def stop(self) -> None:
        """End every thread; ticks under way are cancelled."""
        self._ended.set()
        await asyncio.to_thread(self._guard.join)
        await asyncio.gather(*(thread.stop() for thread in self._threads))

    @property
    def states(self) -> list[DaemonState]:
        """Every daemon's state."""
        return [routine.state for routine in self.routines]

    def lags(self) -> list[Lag]:
        """How late each of the threads' loops is, those that are held included."""
        with self._lock:
            return [thread.lag for thread in self._threads]

    def error_of(self, name: str) -> str | None:
        """What the last tick of a daemon failed with; KeyError if there is no such daemon."""
        return {state.name: state.error for state in self.states}[name]

    def troubles(self) -> dict[str, str]:
        """The daemons that do not do their work now, and why."""
        found = {each.daemon.name: each.state.trouble(each.daemon) for each in self.routines}
        return {name: why for name, why in found.items() if why is not None}

    # -- threads ----------------------------------------------------------------------------

    def _new_thread(self) -> MeasuredLoop:
        thread = MeasuredLoop(f"daemons-{self._made}", "daemon", self._metrics)
        self._made += 1
        return thread

    def _settle(self, routine: "_Routine", thread: MeasuredLoop) -> None:
        """Let the routine tick on ``thread`` from now on."""
        routine.home = thread
        repeating = thread.spawn(routine.repeat(thread, self._move_on))

        def ended(repeating: Future[None]) -> None:
            if routine.home is thread:  # it has not moved to another thread
                error = None if repeating.cancelled() else repeating.exception()
                self._supervision.ended(f"daemon {routine.daemon.name}", error)

        repeating.add_done_callback(ended)

    def _guard_threads(self) -> None:
        suspects: dict[MeasuredLoop, tuple[_Routine, float]] = {}
        while not self._ended.wait(GUARD_EVERY_S):
            found: dict[MeasuredLoop, tuple[_Routine, float]] = {}
            for thread in list(self._threads):
                holder = self._holder(thread)
                if holder is None or holder.state.began_at is None:
                    continue
                # Seen twice in the same tick: between two looks a loop that is merely late has
                # come round, also when the whole process had been frozen.
                found[thread] = (holder, holder.state.began_at)
                if suspects.get(thread) == found[thread]:
                    self._replace(thread, holder)
            suspects = found

    def _holder(self, thread: MeasuredLoop) -> "_Routine | None":
        """The routine that has held ``thread`` for too long and is still on it."""
        if thread.lag.held_s < HOLDS_S:
            return None
        running = asyncio.current_task(thread.loop)
        for routine in self.routines:
            if routine.task is running and running is not None and routine.home is thread:
                return routine
        return None

    def _replace(self, held: MeasuredLoop, holder: "_Routine") -> None:
        """Move every routine but the holder off a thread, and the holder when it returns."""
        with self._lock:
            fresh = self._new_thread()
            fresh.start(self._supervision)
            self._threads.append(fresh)
            self.replaced += 1
            holder.state.holds = True
            for routine in self.routines:
                if routine.home is held and routine.state.holds:
                    routine.home = fresh  # it holds this thread, or still another one
                elif routine.home is held:
                    routine.leave()
                    self._settle(routine, fresh)
        log.error(
            "daemon_holds_its_thread",
            daemon=holder.daemon.name,
            thread=held.name,
            others_go_on_in=fresh.name,
            where=held.lag.where(),
            times=self.replaced,
        )

    def _move_on(self, routine: "_Routine", held: MeasuredLoop) -> None:
        """On ``held``, whose holder has returned: it follows the others, the thread ends."""
        with self._lock:
            if self._ended.is_set():
                return
            routine.state.holds = False
            self._settle(routine, routine.home or held)
            self._threads.remove(held)
            self._supervision.forget_thread(held.thread)
        log.warning("daemon_freed_its_thread", daemon=routine.daemon.name, thread=held.name)
        held.let_go()


class _Routine:
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
        """End here: what runs on a thread that is held is cancelled when that comes round."""
        task, self.task = self.task, None
        self.state.began_at = None
        if task is not None and self.home is not None:
            self.home.loop.call_soon_threadsafe(task.cancel)

    @property
    def is_left(self) -> bool:
        """Whether the running task is one that was left behind, so that it must do no more."""
        return self.task is not asyncio.current_task()

    async def repeat(
        self, thread: MeasuredLoop, move_on: Callable[["_Routine", MeasuredLoop], None]
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

    def __init__(self, bridge: Bridge, routine: _Routine) -> None:
        self._bridge = bridge
        self._routine = routine
        self._turn = asyncio.Lock()  # used on the core's loop only

    async def call(self, action: Callable[[Core], Coroutine[Any, Any, T]]) -> T:
        """See `Bridge.call`."""

        async def in_turn(core: Core) -> T:
            async with self._turn:
                return await action(core)

        answer = await self._bridge.call(in_turn)
        if self._routine.is_left:
            raise asyncio.CancelledError
        return answer
