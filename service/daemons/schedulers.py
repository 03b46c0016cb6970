"""Runs daemons on threads and loops of their own, so that none can delay another or the API.

Daemons share threads, so one that holds its thread (it sleeps, computes or reads without awaiting)
would stop the others there. A guard outside sees that and moves the others to a fresh thread; the
one that holds goes on there, too, once it returns. So there are never more threads than the pool
has and daemons that hold one.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Event, Lock, Thread

import structlog

from service.core.bridge import Bridge
from service.daemons.daemon import Daemon, DaemonState
from service.daemons.routine import Routine
from service.runtime.supervision import Supervision
from service.signals.loop_lag import Lag, MeasuredLoop
from service.signals.metrics.registry import Metrics

GUARD_EVERY_S = 0.05
HOLDS_S = 0.3  # a thread held by a daemon for longer is taken from the others' way

log = structlog.get_logger("holdfast.daemons")


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
        self.routines = [Routine(daemon, metrics) for daemon in daemons]
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

    def _settle(self, routine: Routine, thread: MeasuredLoop) -> None:
        """Let the routine tick on ``thread`` from now on."""
        routine.home = thread
        repeating = thread.spawn(routine.repeat(thread, self._move_on))

        def ended(repeating: Future[None]) -> None:
            if routine.home is thread:  # it has not moved to another thread
                error = None if repeating.cancelled() else repeating.exception()
                self._supervision.ended(f"daemon {routine.daemon.name}", error)

        repeating.add_done_callback(ended)

    def _guard_threads(self) -> None:
        suspects: dict[MeasuredLoop, tuple[Routine, float]] = {}
        while not self._ended.wait(GUARD_EVERY_S):
            found: dict[MeasuredLoop, tuple[Routine, float]] = {}
            for thread in list(self._threads):
                holder = self._holder(thread)
                if holder is None or holder.state.began_at is None:
                    continue
                # Seen twice in the same tick: between two looks a loop that is merely late
                # has run, also when the whole process had been frozen.
                found[thread] = (holder, holder.state.began_at)
                if suspects.get(thread) == found[thread]:
                    self._replace(thread, holder)
            suspects = found

    def _holder(self, thread: MeasuredLoop) -> Routine | None:
        """The routine that has held ``thread`` for too long and is still on it."""
        if thread.lag.held_s < HOLDS_S:
            return None
        running = asyncio.current_task(thread.loop)
        for routine in self.routines:
            if routine.task is running and running is not None and routine.home is thread:
                return routine
        return None

    def _replace(self, held: MeasuredLoop, holder: Routine) -> None:
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

    def _move_on(self, routine: Routine, held: MeasuredLoop) -> None:
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
