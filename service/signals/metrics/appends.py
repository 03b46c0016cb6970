"""Counts what the log does in metrics, so that `streams` needs to know no metrics library."""

from service.signals.metrics.registry import Metrics

# A full log answers, and every instance would say the same: no case for readiness.
TROUBLES = {"unavailable": "the log gave no answer", "full": None}


class LogObserver:
    """What `streams.jetstream.group_commit` tells of its work, and how the last write went."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.trouble: str | None = None  # why the last write was not answered; None when it was

    def reconnected(self) -> None:
        """The server may be another one than the one that did not answer, or started anew."""
        self.trouble = None

    def appended(self, count: int, batch_size: int, duration_s: float) -> None:
        """``count`` drafts are on disk, written as one request of ``batch_size`` messages."""
        self.trouble = None
        self._metrics.count("agent.log.append.total", count)
        self._metrics.observe("agent.log.append.batch_size", batch_size)
        self._metrics.observe("agent.log.append.duration", duration_s)

    def append_failed(self, kind: str) -> None:
        """An append failed for good."""
        self.trouble = TROUBLES.get(kind, self.trouble)
        self._metrics.count("agent.log.append.error.total", kind=kind)

    def conflicted(self) -> None:
        """An append lost its race; the decider tries again, so it is no error of the log."""
        self._metrics.count("agent.log.append.error.total", kind="conflict")
