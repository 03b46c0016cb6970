"""How late event loops run what is due: sampled on each loop, and watched from a thread outside.

A loop that is held up cannot report it. So each leaves a time behind, and others look at its age:
readiness when it is asked, and `Watch` all the time, which logs where in the code the loop is held.
Time here is `time.monotonic`: uvloop's own clock stands still while a callback runs.
"""

import asyncio
import sys
import traceback
from collections.abc import Callable, Iterable
from threading import Event, Thread, get_ident
from time import monotonic

import structlog

from service.runtime.loops import JOIN_S, LoopThread
from service.runtime.supervision import Supervision
from service.runtime.tuning import uncollected
from service.signals.metrics.registry import Metrics

LAG_SAMPLE_S = 0.25
WATCH_EVERY_S = 0.1
HELD_S = 1.0  # a loop that has run nothing for so long is held up, not merely busy
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
        # Private by name, and documented for exactly this. It holds a lock that the end of a
        # `threading.local` takes, too: in Python 3.11 a search for cycles there waits for ever.
        with uncollected():
            frame = sys._current_frames().get(self.thread_id or 0)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if frame is None:
            return "its thread has ended"
        frames = traceback.extract_stack(frame)[-_FRAMES:]
        return " < ".join(f"{each.name} ({each.filename}:{each.lineno})" for each in frames[::-1])


class MeasuredLoop(LoopThread):
    """A loop thread whose lag is sampled; ``label`` names its kind in ``agent.loop.lag``."""

    def __init__(self, name: str, label: str, metrics: Metrics) -> None:
        super().__init__(name)
        self.lag = Lag(name, label, metrics)

    def start(self, supervision: Supervision | None = None) -> None:
        """Start the thread and its lag sampler, both watched by ``supervision``."""
        super().start()
        sampling = self.spawn(self.lag.sample_forever())
        if supervision is not None:
            supervision.watch_thread(self.thread)
            supervision.watch(f"{self.name}, lag", sampling, may_be_cancelled=True)


class Watch:
    """A thread that looks at every loop from outside and logs those that are held up, and where.

    It is the only witness while the API loop is held, for then nothing answers.
    """

    def __init__(self, lags: Callable[[], Iterable[Lag]]) -> None:
        self._lags = lags
        self._held: dict[str, float] = {}
        self._ended = Event()
        self._thread = Thread(target=self._run, name="watch", daemon=True)

    def start(self, supervision: Supervision | None = None) -> None:
        """Begin to look, watched by ``supervision``."""
        self._thread.start()
        if supervision is not None:
            supervision.watch_thread(self._thread)

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
