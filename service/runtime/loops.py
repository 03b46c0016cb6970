"""A thread with an event loop of its own, whose lag is measured: the unit of isolation.

A loop that is held up cannot say so. So each leaves a beat behind, and others look at its age:
readiness when it is asked, and `Watch` all the time, which logs where in the code the loop is held.
Time here is `time.monotonic`: uvloop's own clock stands still while a callback runs.
"""

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from threading import Event, Thread, get_ident
from time import monotonic
from typing import Any, TypeVar

import structlog
import uvloop

from service.signals.metrics.registry import Metrics

T = TypeVar("T")

LAG_SAMPLE_S = 0.25
JOIN_S = 5.0
WATCH_EVERY_S = 0.1
HELD_S = 1.0  # a loop that has not come round for so long is held up, not merely busy
_FRAMES = 4

log = structlog.get_logger("holdfast.loops")


class Lag:
    """How late one loop runs what is due: sampled into ``agent.loop.lag``, the last kept here.

    ``name`` is the loop's thread, ``label`` its kind: the metric's label.
    """

    def __init__(self, name: str, label: str, metrics: Metrics) -> None:
        self.name = name
        self.label = label
        self.thread_id: int | None = None
        self._last_s = 0.0
        self._due_at: float | None = None
        self._metrics = metrics

    @property
    def held_s(self) -> float:
        """For how long the loop has been overdue at this moment; any thread may ask."""
        due_at = self._due_at
        return 0.0 if due_at is None else max(monotonic() - due_at, 0.0)

    @property
    def lag_s(self) -> float:
        """The last sample, or what the one under way has come to if that is more."""
        return max(self._last_s, self.held_s)

    async def sample_forever(self) -> None:
        """Measure the loop that this runs on."""
        self.thread_id = get_ident()
        while True:
            self._due_at = due_at = monotonic() + LAG_SAMPLE_S
            await asyncio.sleep(LAG_SAMPLE_S)
            self._last_s = max(monotonic() - due_at, 0.0)
            self._metrics.observe("agent.loop.lag", self._last_s, loop=self.label)

    def where(self) -> str:
        """The innermost frames of the loop's thread: what it is doing now."""
        # Private by name, and documented for exactly this.
        frame = sys._current_frames().get(self.thread_id or 0)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if frame is None:
            return "its thread has ended"
        frames = traceback.extract_stack(frame)[-_FRAMES:]
        return " < ".join(f"{each.name} ({each.filename}:{each.lineno})" for each in frames[::-1])


class LoopThread:
    """Runs coroutines on a daemon thread; ``label`` names the loop in ``agent.loop.lag``."""

    def __init__(self, name: str, label: str, metrics: Metrics) -> None:
        self.name = name
        self.lag = Lag(name, label, metrics)
        self.loop = uvloop.new_event_loop()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether its loop still runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread and its lag sampler."""
        self._thread.start()
        self.spawn(self.lag.sample_forever())

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin ``coroutine`` on this loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    async def ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` on this loop and await its result on the caller's."""
        return await asyncio.wrap_future(self.spawn(coroutine))

    async def stop(self) -> None:
        """Cancel what runs, end the loop and its thread; waits at most `JOIN_S`."""
        if not self._thread.is_alive():
            return
        self.let_go()
        await asyncio.to_thread(self._thread.join, JOIN_S)

    def let_go(self) -> None:
        """Cancel what runs, end the loop and its thread, some time; waits for nothing."""
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self._cancel_the_rest()
            self.loop.close()

    def _cancel_the_rest(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=1))
        for task in tasks:
            with suppress(asyncio.CancelledError, asyncio.InvalidStateError):
                task.exception()


class Watch:
    """A thread that looks at every loop from outside and logs those that are held up, and where.

    It is the only witness while the API loop is held, for then nothing answers.
    """

    def __init__(self, lags: Callable[[], Iterable[Lag]]) -> None:
        self._lags = lags
        self._held: dict[str, float] = {}
        self._ended = Event()
        self._thread = Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._ended.wait(WATCH_EVERY_S):
            self.step()

    def step(self) -> None:
        """Log each loop that has just been found held up, or free again."""
        lags = {lag.name: lag for lag in self._lags()}
        for name, lag in lags.items():
            held_s = lag.held_s
            if held_s > HELD_S and name not in self._held:
                log.error("loop_held", loop=name, held_s=round(held_s, 3), where=lag.where())
            if held_s > HELD_S:
                self._held[name] = held_s
            elif name in self._held:
                log.info(
                    "loop_free", loop=name, held_s=round(max(self._held.pop(name), lag.lag_s), 3)
                )
        for name in [name for name in self._held if name not in lags]:
            del self._held[name]
