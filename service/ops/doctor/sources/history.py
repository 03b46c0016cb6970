"""Samples of the counters of the last five minutes, so that rates are known.

Prometheus keeps such a history outside; an operator without Prometheus, who asks an instance once,
needs it here. It is small: a few numbers per series, every five seconds.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from service.ops.doctor.evidence import BadEvent, Window
from service.signals.metrics.registry import Metrics, Value
from streams.log import BadFact

SAMPLE_S = 5.0
KEPT_S = 300.0
RECENT_S = 60.0
LAST_BAD_EVENTS = 5

WATCHED = (
    "agent.task.claim.poll.total",
    "agent.task.claim.success.total",
    "agent.task.claim.empty.total",
    "agent.task.claim.reclaimed.total",
    "agent.task.claim.conflict.total",
    "agent.task.dispatch.success.total",
    "agent.task.dispatch.reject.total",
    "agent.task.heartbeat.success.total",
    "agent.task.heartbeat.guard_reject.total",
    "agent.task.heartbeat.error.total",
    "agent.task.lease.remaining_at_renew.ratio",
    "agent.task.claimed_update.success.total",
    "agent.task.claimed_update.guard_reject.total",
    "agent.task.execution.total",
    "agent.sse.push.attempt.total",
    "agent.sse.push.fail.total",
    "agent.sse.resume.total",
    "agent.sse.replay.duration",
    "agent.log.append.duration",
    "agent.log.append.error.total",
    "agent.loop.lag",
    "agent.audit.dropped.total",
    "agent.projection.bad_event.total",
    "agent.projection.listener_error.total",
    "agent.projection.mismatch.total",
)

Series = dict[str, dict[str, float]]


class Sample(msgspec.Struct, frozen=True):
    """The watched series at one moment of the monotonic clock, and how much was claimable."""

    at: float
    series: Series
    backlog: int


class History:
    """Samples of the last `KEPT_S`; lives on the API loop."""

    def __init__(
        self,
        metrics: Metrics,
        backlog: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._backlog = backlog
        self._clock = clock
        self._samples: deque[Sample] = deque(maxlen=int(KEPT_S / SAMPLE_S) + 1)
        self.bad_events: deque[BadEvent] = deque(maxlen=LAST_BAD_EVENTS)
        self.sample()

    async def sample_forever(self) -> None:
        """Take a sample every `SAMPLE_S`."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            self.sample()

    def sample(self) -> None:
        """Remember how things are now."""
        self._samples.append(self._now())

    def bad(self, fact: BadFact) -> None:
        """Remember a fact that cannot be read, or that was written by hand and ignored."""
        self.bad_events.append(BadEvent(sequence=fact.sequence, reason=fact.reason))

    def window(self, seconds: float = KEPT_S) -> Window:
        """What has happened in the last ``seconds``, or since there are samples."""
        now, then = self._now(), self._oldest(seconds)
        increase = {
            name: {key: value - then.series[name].get(key, 0.0) for key, value in series.items()}
            for name, series in now.series.items()
        }
        return Window(now.at - then.at, increase)

    def backlog_before(self, seconds: float = KEPT_S) -> int:
        """How much was claimable at the beginning of that window."""
        return self._oldest(seconds).backlog

    def _oldest(self, seconds: float) -> Sample:
        since = self._clock() - seconds
        return next((each for each in self._samples if each.at >= since), self._samples[-1])

    def _now(self) -> Sample:
        series = {name: _series(self._values(name)) for name in WATCHED}
        return Sample(self._clock(), series, self._backlog())

    def _values(self, name: str) -> list[Value]:
        shown = self._metrics.shown(name)
        return shown.values if shown is not None else []


def _series(values: Iterable[Value]) -> dict[str, float]:
    """Label values joined by "|"; of a histogram one entry per bucket, the bound coming last."""
    found: dict[str, float] = {}
    for value in values:
        labels = list(value.labels.values())
        if value.buckets is None:
            found["|".join(labels)] = value.value or 0.0
        else:
            for bound, count in value.buckets.items():
                found["|".join([*labels, bound])] = count
    return found
