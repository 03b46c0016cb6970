"""Speaks the log's verbs into metrics, so that `streams` needs to know no metrics library."""

from service.signals.metrics.registry import Metrics


class LogObserver:
    """What `streams.jetstream.group_commit` tells of its work."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def appended(self, count: int, batch_size: int, duration_s: float) -> None:
        """``count`` drafts are on disk, written as one request of ``batch_size`` messages."""
        self._metrics.count("agent.log.append.total", count)
        self._metrics.observe("agent.log.append.batch_size", batch_size)
        self._metrics.observe("agent.log.append.duration", duration_s)

    def append_failed(self, kind: str) -> None:
        """An append failed for good."""
        self._metrics.count("agent.log.append.error.total", kind=kind)

    def conflicted(self) -> None:
        """An append lost its race; the decider tries again, so it is no error of the log."""
        self._metrics.count("agent.log.append.error.total", kind="conflict")
