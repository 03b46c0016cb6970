"""Readiness and status: whether this instance can do its work now, check by check.

Each check is cheap and looks only at what its owner already knows, so that asking never makes a
sick instance sicker.
"""

from collections.abc import Callable, Iterable

from projections.read_models.views import moment_or_none
from service.core.conditions import CLOCKS_DIFFER_S
from service.core.core import Core
from service.daemons.daemon import DaemonState
from service.daemons.schedulers import Schedulers
from service.executor.executor import Executor
from service.ops.status import (
    Check,
    DaemonStatus,
    ExecutorStatus,
    LogStatus,
    LoopStatus,
    ProjectorStatus,
    SseStatus,
    Status,
)
from service.runtime.nats_server.embedded import EmbeddedServer
from service.signals.loop_lag import Lag
from streams.jetstream.log import JetStreamLog
from streams.log import LogState, LogUnavailable

MAX_LAG_S = 5.0
MAX_APPEND_S = 2.0  # much longer than a write takes, and less than what an election takes
MAX_TAIL_SILENCE_S = 1.5  # a tail that is silent for longer than 1 s reads the log directly
MAX_HELD_S = 1.0  # a loop that has run nothing for so long


def log_check(
    core: Core, source: JetStreamLog, schedulers: Schedulers, embedded: EmbeddedServer | None
) -> Check:
    """The log is connected, has a quorum and takes writes, and its tail delivers."""
    probe = schedulers.error_of("log_probe") or (embedded and embedded.cannot_write)
    if not source.connected or probe is not None:
        return Check("log", ok=False, detail=probe or source.last_error or "not connected")
    if (waiting_s := source.append_waiting_s) > MAX_APPEND_S:
        detail = f"a write has waited for {waiting_s:.1f} s for its answer"
        return Check("log", ok=False, detail=detail)
    if (silent_s := source.tail_silent_s) > MAX_TAIL_SILENCE_S:
        detail = f"the tail has not brought what is in the log for {silent_s:.1f} s"
        return Check("log", ok=False, detail=detail)
    return Check("log", ok=True, detail=f"connected{_room(core.conditions.log_state)}")


def _room(state: LogState | None) -> str:
    if state is None or state.max_bytes is None:
        return ""
    return f"; it holds {state.size_bytes:,} of the {state.max_bytes:,} bytes that it may"


def replicas_check(core: Core) -> Check:
    """Every replica keeps up. One that does not stops nothing as long as a majority does."""
    late = core.conditions.late_replicas
    detail = "; ".join(map(str, late))
    return Check("replicas", ok=True, detail=detail or "none is late", warns=bool(late))


def clock_check(core: Core) -> Check:
    """The machine's clock shows what the log's does; nothing in the log goes by the machine's."""
    ahead_s = core.clock.wall_ahead_s
    detail = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the log's"
    return Check("clock", ok=True, detail=detail, warns=abs(ahead_s) >= CLOCKS_DIFFER_S)


def snapshots_checks(core: Core) -> list[Check]:
    """Why new instances will find no new snapshot of the read models; none while all is well."""
    trouble = core.conditions.snapshots_trouble
    return [Check("snapshots", ok=True, detail=trouble, warns=True)] if trouble else []


def projector_check(core: Core) -> Check:
    """The read models are close behind the board."""
    projector = core.projector
    events = core.board.sequence - projector.flushed_sequence
    detail = f"{events} events, {projector.lag_s:.1f} s behind sequence {core.board.sequence}"
    return Check("projector", ok=projector.lag_s < MAX_LAG_S, detail=detail)


def database_check(core: Core, schedulers: Schedulers) -> Check:
    """SQLite took the last flush, and it answered and took the last probe."""
    error = schedulers.error_of("database_probe") or core.projector.flush_error
    return Check("database", ok=error is None, detail=error or "writable")


def daemons_check(schedulers: Schedulers) -> Check:
    """Every daemon does its work."""
    troubles = schedulers.troubles()
    detail = "; ".join(f"{name}: {why}" for name, why in troubles.items())
    return Check("daemons", ok=not troubles, detail=detail or "all on time")


def loops_check(lags: Iterable[Lag]) -> Check:
    """No loop is held up. That the API's is shows by there being no answer."""
    held = [(lag.name, held_s) for lag in lags if (held_s := lag.held_s) > MAX_HELD_S]
    detail = "; ".join(f"{name} is held up for {held_s:.1f} s" for name, held_s in held)
    return Check("loops", ok=not held, detail=detail or "all run")


def executor_check(executor: Executor) -> Check:
    """The executor's threads are alive."""
    alive = executor.snapshot().alive
    return Check("executor", ok=alive, detail="alive" if alive else "a loop of it has ended")


class Health:
    """What `GET /readyz` and `GET /v1/ops/status` answer; the parts may still be starting.

    ``schedulers`` and ``executor`` answer None until that part has started.
    """

    def __init__(
        self,
        core: Core,
        source: JetStreamLog,
        embedded: EmbeddedServer | None,
        *,
        version: str,
        roles: Iterable[str],
        lags: Callable[[], Iterable[Lag]],
        schedulers: Callable[[], Schedulers | None],
        executor: Callable[[], Executor | None],
    ) -> None:
        self._core = core
        self._source = source
        self._embedded = embedded
        self._version = version
        self._roles = frozenset(roles)
        self._lags = lags
        self._schedulers = schedulers
        self._executor = executor

    def readiness(self) -> list[Check]:
        """Every check of this instance; it is ready when all are ok."""
        schedulers, executor = self._schedulers(), self._executor()
        if schedulers is None or (executor is None and "executor" in self._roles):
            return [Check("start", ok=False, detail="the instance is still starting")]
        return [
            log_check(self._core, self._source, schedulers, self._embedded),
            replicas_check(self._core),
            clock_check(self._core),
            *snapshots_checks(self._core),
            projector_check(self._core),
            database_check(self._core, schedulers),
            daemons_check(schedulers),
            loops_check(self._lags()),
            *([executor_check(executor)] if executor else ()),
        ]

    def status(self) -> Status:
        """How this instance is doing, part by part. Raises LogUnavailable while it is starting."""
        schedulers = self._schedulers()
        if schedulers is None:
            raise LogUnavailable("the instance is still starting")
        core, projector, executor = self._core, self._core.projector, self._executor()
        seen = core.conditions.log_state  # of the log, what the last probe saw
        return Status(
            instance=core.instance_id,
            version=self._version,
            roles=tuple(sorted(self._roles)),
            log=LogStatus(
                stream=seen.stream if seen else "",
                first=seen.first if seen else 0,
                head=max(seen.head if seen else 0, core.board.sequence),
                bytes=seen.size_bytes if seen else 0,
            ),
            projector=ProjectorStatus(
                sequence=projector.flushed_sequence,
                lag=core.board.sequence - projector.flushed_sequence,
            ),
            loops=[LoopStatus(name=lag.name, lag_s=lag.lag_s) for lag in self._lags()],
            daemons=list(map(_daemon_status, schedulers.states)),
            executor=_executor_status(executor) if executor else None,
            sse=SseStatus(connections=core.feed.connections),
        )


def _daemon_status(state: DaemonState) -> DaemonStatus:
    return DaemonStatus(
        name=state.name,
        period_s=state.period_s,
        last_success=moment_or_none(state.last_success_at),
        lateness_s=state.lateness_s,
        overruns=state.overruns,
    )


def _executor_status(executor: Executor) -> ExecutorStatus:
    now = executor.snapshot()
    return ExecutorStatus(
        in_flight=now.in_flight, queued=now.queued, capacity=now.capacity, hosts=now.hosts
    )
