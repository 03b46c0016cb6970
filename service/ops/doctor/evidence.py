"""What a diagnosis looks at, as values: gathered from a live instance, or from the log and SQLite.

None means "could not be looked at from here", never "nothing there". Times are log times in
seconds since the epoch, counts are of the window unless they say "now".
"""

from collections.abc import Mapping

import msgspec

from service.executor.hosts.status import HostStatus
from service.executor.running.overruns import OverrunningHandler
from streams.jetstream.names import PLAIN
from streams.log import ReplicaTrouble


class Window(msgspec.Struct, frozen=True):
    """By how much each counter has grown during the last ``seconds``, by its label values.

    A series' key is its label values joined by "|" ("" without labels); of a histogram the last
    is the bucket's upper bound, and buckets are cumulative as Prometheus has them.
    """

    seconds: float
    increase: dict[str, dict[str, float]]

    def total(self, name: str) -> int:
        """The growth of a counter over all of its series."""
        return round(sum(self.increase.get(name, {}).values()))

    def by(self, name: str) -> dict[str, int]:
        """The growth of a counter's series that have grown."""
        series = self.increase.get(name, {})
        return {key: round(value) for key, value in series.items() if value > 0}

    def observed(self, name: str, series: str = "") -> "Observed":
        """What a histogram was shown, of one series ("": of its only one)."""
        prefix = f"{series}|" if series else ""
        buckets = {
            float(key.removeprefix(prefix).replace("+Inf", "inf")): value
            for key, value in self.increase.get(name, {}).items()
            if key.startswith(prefix)
        }
        return Observed(buckets)


class Observed(msgspec.Struct, frozen=True):
    """A histogram's growth: cumulative counts by upper bound."""

    buckets: dict[float, float]

    @property
    def count(self) -> int:
        """How many values were observed."""
        return round(self.buckets.get(float("inf"), 0))

    def up_to(self, bound: float) -> int:
        """How many were at most the largest bucket bound that is not above ``bound``."""
        fitting = [each for each in self.buckets if each <= bound]
        return round(self.buckets[max(fitting)]) if fitting else 0

    def above(self, bound: float) -> int:
        """How many were above the smallest bucket bound that is at least ``bound``."""
        fitting = [each for each in self.buckets if each >= bound]
        return self.count - round(self.buckets[min(fitting)]) if fitting else 0


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Claimable tasks of one kind now: how many, since when the oldest is, and which one it is.

    ``asked_s`` is how long ago a worker asked for the kind; None: never, as far as is known.
    ``running`` counts tasks of the kind under a lease that has not expired.
    """

    kind: str
    tasks: int
    oldest_age_s: float
    plan_id: str
    task_id: str
    asked_s: float | None = None
    running: int = 0


class Claiming(msgspec.Struct, frozen=True, kw_only=True):
    """How claiming goes; ``recent`` is a short window, None without a live instance.

    ``known_kinds`` are those that workers asked for by name, or that have a handler here.
    """

    recent: Window | None
    ready: int
    refining: int
    oldest_age_s: float
    waiting: tuple[Waiting, ...]
    asking: int | None = None
    own_kinds: tuple[str, ...] = ()
    known_kinds: tuple[str, ...] = ()


class ExpiredLease(msgspec.Struct, frozen=True, kw_only=True):
    """A RUNNING task whose lease is over.

    ``renewed_at`` is when its last heartbeat (or its claim) was written, ``last_sequence`` that of
    the owner's last message of any kind.
    """

    plan_id: str
    task_id: str
    kind: str
    owner: str
    attempt: int
    claim_sequence: int
    lease_until: float
    expired_for_s: float
    lease_s: float
    renewed_at: float
    last_sequence: int
    lost: int
    max_lost_leases: int


class LeaseFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Leases now, and how renewals went in the window."""

    running: int
    expired: tuple[ExpiredLease, ...]
    expired_count: int
    window: Window | None
    heartbeat_lag_s: float | None = None


class StaleWrite(msgspec.Struct, frozen=True, kw_only=True):
    """A write that was refused because the lease is another's, as the audit trail has it.

    ``principal`` is who wrote, proved by a token or the instance itself; None without tokens.
    """

    at: float
    event: str
    plan_id: str
    task_id: str
    old_owner: str
    old_attempt: int
    old_claim_sequence: int | None
    new_owner: str | None
    new_attempt: int | None
    new_claim_sequence: int | None
    status: str | None
    audit_sequence: int | None
    principal: str | None = None
    detail: str | None = None

    @property
    def is_stale(self) -> bool:
        """Whether another owner has taken the lease over; a cancelled plan has none."""
        return self.new_attempt is not None and self.new_attempt > self.old_attempt


class Writers(msgspec.Struct, frozen=True, kw_only=True):
    """Refused writes in the window; ``entries`` None means that the audit trail cannot be read."""

    window: Window | None
    entries: tuple[StaleWrite, ...] | None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The worker pool now, and how work came and went in the window."""

    window: Window | None
    backlog: int
    backlog_before: int | None
    ended: int | None
    in_flight: int | None = None
    queued: int | None = None
    capacity: int | None = None
    threads: int | None = None
    overruns: tuple[OverrunningHandler, ...] = ()
    hosts: tuple[HostStatus, ...] = ()
    unfinished_bytes: int = 0
    most_unfinished_bytes: int | None = None


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """What a client of the event stream saw that broke off and resumed by its cursor.

    ``events`` were compared with ``witness``, a second reading of the same range. ``broken`` says
    what was not as it must be, ``failed`` why nothing could be proved.
    """

    witness: str
    events: int = 0
    first: int = 0
    last: int = 0
    resumed_after: int = 0
    took_s: float = 0.0
    broken: str | None = None
    failed: str | None = None


class Streams(msgspec.Struct, frozen=True, kw_only=True):
    """Server-sent events; no canary when the instance looks at itself."""

    connections: int
    window: Window
    canary: Canary | None = None


class DaemonHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One daemon now.

    ``trouble`` is its scheduler's own judgement of what is wrong (None: nothing); ``stuck`` when
    it is not a failure that says why, but a tick that does not end or does not begin.
    """

    name: str
    period_s: float
    lateness_s: float
    last_success_age_s: float | None
    overruns: int
    trouble: str | None
    stuck: bool = False


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """One event loop: how late it ran what was due, the last time it was sampled.

    ``name`` is its kind, as ``agent.loop.lag`` counts it; several threads may share it.
    """

    name: str
    lag_s: float


class LogHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The log: whether it answers, and its extent as last seen.

    ``stopped_pid`` is an embedded nats-server's process that is stopped (SIGSTOP);
    ``missing`` says which facts have left the log, ``retention_trouble`` why no plan can be
    forgotten, ``retention_behind_s`` for how long one has been due. ``clock_stepped_s`` is by how
    much the log server's clock was set lately: forward, or back (negative). ``clock_ahead_s`` is by
    how much the instance's own is ahead of it. ``late_replicas`` do not keep up with their streams.
    ``stream`` and ``audit_stream`` are the streams' names on that server.
    """

    url: str
    answers: bool
    detail: str
    first: int = 0
    head: int = 0
    size_bytes: int = 0
    max_bytes: int | None = None
    seen_age_s: float | None = None
    stopped_pid: int | None = None
    missing: str | None = None
    retention_trouble: str | None = None
    retention_behind_s: float = 0.0
    clock_stepped_s: float = 0.0
    clock_ahead_s: float = 0.0
    late_replicas: tuple[ReplicaTrouble, ...] = ()
    stream: str = PLAIN.plans_stream
    audit_stream: str = PLAIN.audit_stream


class DatabaseHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The read models: whether they can be used, up to where they are, and how far behind."""

    path: str
    error: str | None
    sequence: int = 0
    behind: int = 0
    lag_s: float | None = None


class BadEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the log that could not be read or applied."""

    sequence: int
    reason: str


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of an instance.

    ``failing`` has the checks of readiness that fail, and why. ``offline`` means that no instance
    answered, and that the log and SQLite were read without one: then daemons and loops are not
    known. ``second_holder_age_s`` is how long ago another process wrote under this id.
    """

    log: LogHealth
    database: DatabaseHealth
    second_holder_age_s: float | None = None
    daemons: tuple[DaemonHealth, ...] = ()
    loops: tuple[Loop, ...] = ()
    failing: Mapping[str, str] = {}
    window: Window | None = None
    bad_events: tuple[BadEvent, ...] = ()
    offline: bool = False


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """What is open to others.

    ``open_paths``: what other accounts may do with files of the settings, "read" or "write".
    ``busiest`` is the client that holds most ``connections``, and how many.
    """

    open_paths: Mapping[str, str]
    log_takes_anyone: bool = False
    through_proxy: int = 0
    connections: int = 0
    busiest: tuple[str, int] | None = None
    window: Window | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that could be gathered; ``url`` is where the API is, or would be."""

    at: float
    instance: str
    url: str
    machine: Machine
    window_s: float | None = None
    claiming: Claiming | None = None
    leases: LeaseFigures | None = None
    writers: Writers | None = None
    load: Load | None = None
    streams: Streams | None = None
    security: Security | None = None
    why_not: str = "the API does not answer, and the log and SQLite do not have it"
