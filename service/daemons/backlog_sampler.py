"""Shows how much waits to be claimed, how old it is, how full memory and log are, what lags."""

from service.core.core import Core
from service.daemons.daemon import Daemon, on_core
from streams.log import LogState

PERIOD_S = 1.0


async def _step(core: Core) -> None:
    metrics, now = core.metrics, core.now()
    for lane, (tasks, oldest) in core.board.places.backlog().items():
        metrics.set("agent.task.backlog.current", tasks, lane=lane)
        age_s = 0.0 if oldest is None else max(now - oldest, 0.0)
        metrics.set("agent.task.backlog.oldest_age", age_s, lane=lane)
    most = core.settings.memory.unfinished_bytes
    metrics.set("agent.plan.unfinished", core.board.unfinished.total / most)
    metrics.set("agent.log.filled", _filled(core.conditions.log_state))
    late = {each.node for each in core.conditions.late_replicas}
    metrics.set("agent.log.replicas.behind", len(late))
    projector = core.projector
    metrics.set("agent.projection.sequence", projector.flushed_sequence)
    metrics.set("agent.projection.lag.events", core.board.sequence - projector.flushed_sequence)
    metrics.set("agent.projection.lag.seconds", projector.lag_s)


def _filled(log: LogState | None) -> float:
    """The share of the log's bound that it holds; 0 where nothing bounds it or it is not known."""
    return log.size_bytes / log.max_bytes if log is not None and log.max_bytes else 0.0


def backlog_sampler() -> Daemon:
    """Samples once a second."""
    return Daemon(name="backlog_sampler", period_s=PERIOD_S, step=on_core(_step))
