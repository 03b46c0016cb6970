"""How one instance is doing: the checks of its readiness, and its status in numbers."""

import msgspec

from projections.read_models.views import Moment
from service.executor.hosts.status import HostStatus


class Check(msgspec.Struct, frozen=True):
    """One line of readiness: what was looked at, whether it is well, and what was seen.

    ``warns`` where it is ok, and an operator should know what was seen.
    """

    name: str
    ok: bool
    detail: str
    warns: bool = False


class LogStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The log's extent, as far as this instance knows it."""

    stream: str
    first: int
    head: int
    bytes: int


class ProjectorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where the read models are, and how many facts they are behind the board."""

    sequence: int
    lag: int


class LoopStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One event loop and how late it ran what was due, in seconds."""

    name: str
    lag_s: float


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One daemon: its period, its last success, and how it keeps time."""

    name: str
    period_s: float
    last_success: Moment | None
    lateness_s: float
    overruns: int


class ExecutorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The worker pool: tasks running, tasks waiting, how many it can hold, and its processes.

    ``hosts`` is empty where handlers run on threads of the instance.
    """

    in_flight: int
    queued: int
    capacity: int
    hosts: tuple[HostStatus, ...] = ()


class SseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Open event streams."""

    connections: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How one instance is doing; ``executor`` is None without that role."""

    instance: str
    version: str
    roles: tuple[str, ...]
    log: LogStatus
    projector: ProjectorStatus
    loops: list[LoopStatus]
    daemons: list[DaemonStatus]
    executor: ExecutorStatus | None
    sse: SseStatus
