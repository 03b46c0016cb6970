"""Rates need a past: counters of the last five minutes, kept small."""

from service.ops.doctor.sources.history import KEPT_S, SAMPLE_S, History
from service.signals.metrics.registry import Metrics


class Watch:
    """A clock that the test moves, a sample taken whenever one is due."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.backlog = 0
        self.metrics = Metrics()
        self.history = History(self.metrics, lambda: self.backlog, lambda: self.now)

    def pass_(self, seconds: float) -> None:
        for _ in range(round(seconds / SAMPLE_S)):
            self.now += SAMPLE_S
            self.history.sample()


def test_a_young_instance_tells_what_happened_since_its_start() -> None:
    watch = Watch()
    watch.metrics.count("agent.task.claim.success.total", 7)
    watch.now += 2
    window = watch.history.window()
    assert (window.seconds, window.total("agent.task.claim.success.total")) == (2.0, 7)


def test_what_happened_before_the_window_does_not_count() -> None:
    watch = Watch()
    watch.metrics.count("agent.task.claim.success.total", 7)
    watch.backlog = 5
    watch.pass_(2 * KEPT_S)
    watch.metrics.count("agent.task.claim.success.total", 2)
    assert watch.history.window().total("agent.task.claim.success.total") == 2
    assert KEPT_S - SAMPLE_S <= watch.history.window().seconds <= KEPT_S
    assert watch.history.backlog_before() == 5


def test_a_short_window_looks_at_the_newest_samples() -> None:
    watch = Watch()
    watch.pass_(100)
    watch.metrics.count("agent.task.claim.empty.total", 3)
    watch.pass_(100)
    assert watch.history.window(60).total("agent.task.claim.empty.total") == 0
    assert watch.history.window().total("agent.task.claim.empty.total") == 3


def test_labels_and_buckets_are_not_confused() -> None:
    watch = Watch()
    watch.metrics.count("agent.task.claimed_update.guard_reject.total", op="complete")
    watch.metrics.observe("agent.loop.lag", 0.3, loop="api")
    watch.metrics.observe("agent.loop.lag", 0.001, loop="api")
    watch.metrics.observe("agent.loop.lag", 0.001, loop="daemon")
    watch.metrics.observe("agent.task.lease.remaining_at_renew.ratio", 0.3)
    window = watch.history.window()
    assert window.by("agent.task.claimed_update.guard_reject.total") == {"complete": 1}
    lag = window.observed("agent.loop.lag", "api")
    assert (lag.count, lag.above(0.1), lag.up_to(0.1)) == (2, 1, 1)
    left = window.observed("agent.task.lease.remaining_at_renew.ratio")
    assert (left.up_to(0.4), left.up_to(0.2)) == (1, 0)
