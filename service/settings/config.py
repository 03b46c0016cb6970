"""The settings: every key with its type, its bounds and its default.

`service.settings.loading` reads them; `service.settings.rules` checks several keys together, and
`service.settings.keys` knows them by name.
"""

import os
import re
import secrets
import socket
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from streams.jetstream.access import Credentials
from streams.jetstream.names import DOMAIN, PREFIX
from streams.jetstream.names import Names as NatsNames
from streams.plan.limits import MAX_LEASE_S

Port = Annotated[int, Meta(ge=0, le=65535)]
SettingText = Annotated[str, Meta(max_length=1024)]
InstanceId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._:-]{1,128}$",
        description="1 to 128 letters, digits, dots, colons, dashes or underscores",
    ),
]
SettingName = Annotated[str, Meta(min_length=1, max_length=1024)]
Argument = Annotated[str, Meta(min_length=1, max_length=65_536)]
SettingNames = Annotated[tuple[SettingName, ...], Meta(max_length=256)]
HostName = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])$",
        description="a host name or an address, without a port",
    ),
]
RootPath = Annotated[
    str,
    Meta(
        pattern=r"^(/[A-Za-z0-9._~-]{1,64}){0,8}$",
        description="empty, or a path such as /holdfast, without a slash at its end",
    ),
]
HostNames = Annotated[tuple[HostName, ...], Meta(max_length=256)]


class ConfigError(Exception):
    """A setting that cannot be used; the message names key, value, origin and what is allowed."""


def new_instance_id() -> str:
    """A name for this process that no other process has: host, pid and random digits."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "host"
    return f"{host}:{os.getpid()}:{secrets.token_hex(4)}"


class HttpSettings(Struct, frozen=True):
    """Where the API listens (port 0: any free one), and what it accepts there.

    `allowed_hosts` are names that `Host` may have beside this instance's addresses. `tls_cert` and
    `tls_key` are PEM files. `root_path` is the path under which a proxy publishes this instance,
    whether it cuts it off or not. A head that takes longer than `head_timeout_s` from its first
    byte, or a body that takes longer than `body_timeout_s` from there, is refused (408). The last
    five bound one client: a principal, or an address that is not loopback (connections: the address
    only).
    """

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Port = 8000
    allowed_hosts: HostNames = ()
    root_path: RootPath = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    head_timeout_s: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    body_timeout_s: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0
    max_connections_per_client: Annotated[int, Meta(ge=1, le=1_000_000)] = 5_000
    max_streams_per_client: Annotated[int, Meta(ge=1, le=1_000_000)] = 5_000
    max_waiting_claims_per_client: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000
    writes_per_s: Annotated[float, Meta(gt=0, le=1_000_000)] = 2_000
    bytes_per_s: Annotated[float, Meta(gt=0, le=1e12)] = 50_000_000


class NatsSettings(Struct, frozen=True):
    """The log: an existing server or cluster (`url`), or an embedded one on `port` (0: any).

    With `url`: who Holdfast is, by `creds_file` (as `nsc` writes it) or `nkey_file` (a seed), and
    TLS with a CA of one's own (`tls_ca`) and a client's certificate (`tls_cert`, `tls_key`);
    what stands before the names of streams and subjects (`prefix`), and a JetStream `domain`.
    `retention_creds_file` is of the one user that may purge the log, for `retention.finished_days`;
    `retention_url` names that user, or other servers, where it has no such file.

    The embedded server puts batches together in `staging_dir`, a folder in memory, if it is given.
    Each start bounds the streams that no operator has bounded. The log may hold `plans_share` of
    the disk (what is free, and its own), or, with `url`, of what the account may store;
    `plans_max_bytes` (0: not given) stands in place of it. The audit trail may hold
    `audit_max_bytes`, and at most a tenth of the same room; then its oldest entries leave.
    """

    url: SettingText = ""
    port: Port = 4222
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    staging_dir: Path | None = None
    creds_file: Path | None = None
    retention_creds_file: Path | None = None
    retention_url: SettingText = ""
    nkey_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    prefix: Annotated[
        str,
        Meta(
            pattern=PREFIX,
            description="1 to 32 letters, digits, dashes or underscores, the first one a letter "
            "or a digit, or empty",
        ),
    ] = ""
    domain: Annotated[
        str,
        Meta(
            pattern=DOMAIN, description="1 to 64 letters, digits, dashes or underscores, or empty"
        ),
    ] = ""

    plans_share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    plans_max_bytes: Annotated[int, Meta(ge=0, le=2**60)] = 0
    audit_max_bytes: Annotated[int, Meta(ge=1_048_576, le=2**60)] = 1_073_741_824

    @property
    def access(self) -> Credentials:
        """How the service and an external server know each other, and its names there."""
        files = (self.creds_file, self.nkey_file, self.tls_ca, self.tls_cert, self.tls_key)
        return Credentials(*files, names=NatsNames(self.prefix, self.domain))

    @property
    def retention_access(self) -> Credentials | None:
        """How the user that may purge an external server's log proves it; None: there is none."""
        if self.retention_creds_file is None and not self.retention_url:
            return None
        return replace(self.access, creds_file=self.retention_creds_file, nkey_file=None)


class MemorySettings(Struct, frozen=True):
    """What the unfinished plans of the log may take in the memory of each instance.

    Counted are their contexts, inputs, feedback, errors and short outputs, and 1,500 bytes for each
    plan and task. A submission beyond `unfinished_bytes` is answered 429; a plan that has ended
    counts no more. Instances of one log need the same value.
    """

    unfinished_bytes: Annotated[int, Meta(ge=1_048_576, le=2**50)] = 2_147_483_648


class AuthSettings(Struct, frozen=True):
    """Who may call: the file that `holdfast token list` shows. Without it only this machine may."""

    tokens_file: Path | None = None


class PoolSettings(Struct, frozen=True):
    """How many threads dispatch tasks where `executor.worker.processes` is 0; else none does."""

    pool_size: Annotated[int, Meta(ge=1, le=64)] = 1


class DaemonPoolSettings(Struct, frozen=True):
    """How many threads the daemons share."""

    pool_size: Annotated[int, Meta(ge=1, le=64)] = 2


class SchedulingSettings(Struct, frozen=True):
    """The isolated schedulers."""

    task_executor: PoolSettings = PoolSettings()
    daemon: DaemonPoolSettings = DaemonPoolSettings()


class SseSettings(Struct, frozen=True):
    """Server-sent events: the ping period, the newest events kept, a replay's read, the limit."""

    heartbeat_s: Annotated[float, Meta(gt=0, le=300)] = 15
    buffer_events: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    replay_batch_size: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000


class ObservabilitySettings(Struct, frozen=True):
    """What is written to the audit trail, where spans go, and where the runbook is published.

    Spans go by OTLP over HTTP to `otlp_endpoint`, a base URL, or to `otlp_traces_endpoint`, used as
    it is; without both there are none. Without `runbook_url` findings name the runbook's file.
    """

    audit_log_enabled: bool = True
    audit_success_log_enabled: bool = False
    otlp_endpoint: SettingText = ""
    otlp_traces_endpoint: SettingText = ""
    runbook_url: SettingText = ""


class LogSettings(Struct, frozen=True):
    """The log on stderr: what a line looks like, and the lowest level that is written.

    `auto` is readable text on a terminal and JSON otherwise.
    """

    format: Literal["auto", "text", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class UiSettings(Struct, frozen=True):
    """Whether the page is served at `/`."""

    enabled: bool = True


class SampleSettings(Struct, frozen=True):
    """Whether an empty log is given the sample plan."""

    enabled: bool = True


class ClaimSettings(Struct, frozen=True):
    """How the executor claims, and how long a lease lasts for tasks that state no `lease_s`."""

    lease_s: Annotated[float, Meta(gt=0, le=MAX_LEASE_S)] = 15
    heartbeat_s: Annotated[float, Meta(gt=0, le=3600)] = 5
    batch_size: Annotated[int, Meta(ge=1, le=1000)] = 100
    max_per_tick: Annotated[int, Meta(ge=1, le=10_000)] = 100
    ready_first: bool = True
    ageing_s: Annotated[float, Meta(ge=0, le=86_400)] = 30
    refining_max_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.3
    refining_min_per_tick: Annotated[int, Meta(ge=0, le=10_000)] = 1


class ExecutionSettings(Struct, frozen=True):
    """How long an attempt whose task states no `timeout_s` may run; retries of time-outs."""

    timeout_s: Annotated[float, Meta(gt=0, le=7 * 24 * 3600)] = 120
    timeout_retry_max: Annotated[int, Meta(ge=0, le=100)] = 1


class WorkerSettings(Struct, frozen=True):
    """The worker pool: slots, waiting places, and what becomes of a task that finds neither.

    `processes` worker host processes run the handlers, `core_size` at once in all of them together;
    -1: one fewer than there are cores, at least 1, at most `core_size`. With 0 they run on threads
    of the serving process, and those that compute in Python hold it up. Each host may have
    `memory_mb` MiB of data beside the stacks of its threads; 0 sets no bound. Handlers of modules
    that a new process cannot import run on threads.
    `release` puts the claim back at once. Nothing else is offered: a caller that waits would
    stop the executor's tick, and running in the caller would put user code on its loop.
    """

    core_size: Annotated[int, Meta(ge=1, le=1024)] = 8
    processes: Annotated[int, Meta(ge=-1, le=64)] = -1
    memory_mb: Annotated[int, Meta(ge=0, le=1_048_576)] = 4096
    queue_capacity: Annotated[int, Meta(ge=0, le=100_000)] = 0
    rejection_policy: Literal["release"] = "release"

    @property
    def hosts(self) -> int:
        """How many worker host processes there are; none without a handler to run."""
        wanted = max(_cores() - 1, 1) if self.processes < 0 else self.processes
        return min(wanted, self.core_size)


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class RetentionSettings(Struct, frozen=True):
    """How many days a plan is kept after its end (0: for ever), and where it is archived first.

    After that time the plan is forgotten: its facts leave the log and its rows the read models.
    With `archive_dir` they are written there before, one file a day.
    """

    finished_days: Annotated[float, Meta(ge=0, le=36_500)] = 0
    archive_dir: Path | None = None


class SnapshotSettings(Struct, frozen=True):
    """Copies of the read models beside an external log, from which new instances start.

    An instance takes one when it has folded `every_facts` more than the newest one holds, unless
    another one takes it; 0: none is taken and none is used. The newest one and one that is being
    written may take `max_bytes` together, and at most three tenths of what the account may store.
    """

    every_facts: Annotated[int, Meta(ge=0, le=10**12)] = 1_000_000
    max_bytes: Annotated[int, Meta(ge=1_048_576, le=2**60)] = 4_294_967_296


class SecretSettings(Struct, frozen=True, forbid_unknown_fields=True, rename={"for_": "for"}):
    """Where a secret comes from (`env` or `file`), and the origins that it may be sent to.

    An origin is `https://host:port`, or `command:NAME` for a command line of the settings.
    """

    env: SettingText = ""
    file: Path | None = None
    for_: SettingNames = ()

    def __post_init__(self) -> None:
        """Raise ValueError for a secret without one source, or without a destination."""
        if bool(self.env) == (self.file is not None):
            raise ValueError("give env or file, one of them")
        if not self.for_:
            raise ValueError("for must name the origins that it may be sent to")


class CommandSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """One command line: `argv` with `{parameter}` in it, and a pattern for each parameter.

    A parameter without a pattern takes any text of one line. No value may begin with a dash.
    Memory (`memory_mb`) and files (`file_mb` each) are bounded per process, `processes` for the
    whole command. `user` is another account to run as, which takes the rights of root.
    """

    argv: Annotated[tuple[Argument, ...], Meta(min_length=1, max_length=256)]
    parameters: dict[str, SettingText] = {}
    user: SettingText = ""
    memory_mb: Annotated[int, Meta(ge=1, le=1_048_576)] = 1024
    processes: Annotated[int, Meta(ge=1, le=4096)] = 64
    open_files: Annotated[int, Meta(ge=16, le=65_536)] = 256
    file_mb: Annotated[int, Meta(ge=0, le=1_048_576)] = 256
    cpu_s: Annotated[int, Meta(ge=1, le=604_800)] = 3600


class EndpointSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A model's endpoint: its base URL, and its key by environment variable or by secret."""

    base_url: SettingName
    api_key_env: SettingText = ""
    secret: SettingText = ""

    def __post_init__(self) -> None:
        """Raise ValueError for two keys."""
        if self.api_key_env and self.secret:
            raise ValueError("give api_key_env or secret, not both")


class ChatSettings(Struct, frozen=True):
    """The endpoints that `chat` knows by name, and whether an input may name any other URL."""

    endpoints: dict[str, EndpointSettings] = {}
    any_url: bool = False


class WebSettings(Struct, frozen=True):
    """What `http` and `chat` may reach besides public addresses.

    Each entry is a network or an address, with a port if only that one is meant: `10.1.0.0/16`,
    `127.0.0.1:11434`, `[::1]:11434`. The `base_url` of an endpoint is allowed by itself.
    """

    allow_networks: SettingNames = ()


class ExecutorSettings(Struct, frozen=True):
    """The executor: its name, its claims, its workers and its handlers."""

    claim: ClaimSettings = ClaimSettings()
    execution: ExecutionSettings = ExecutionSettings()
    worker: WorkerSettings = WorkerSettings()
    chat: ChatSettings = ChatSettings()
    web: WebSettings = WebSettings()
    poll_interval_s: Annotated[float, Meta(gt=0, le=300)] = 1
    drain_s: Annotated[float, Meta(ge=0, le=3_600)] = 10
    instance_id: InstanceId = field(default_factory=new_instance_id)
    handlers: SettingNames = ()
    command: dict[str, CommandSettings] = {}


class Settings(Struct, frozen=True):
    """Every setting, with where it came from; `Settings()` is the defaults."""

    http: HttpSettings = HttpSettings()
    data_dir: Path = Path("data")
    secrets: dict[str, SecretSettings] = {}
    nats: NatsSettings = NatsSettings()
    memory: MemorySettings = MemorySettings()
    auth: AuthSettings = AuthSettings()
    scheduling: SchedulingSettings = SchedulingSettings()
    sse: SseSettings = SseSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    log: LogSettings = LogSettings()
    ui: UiSettings = UiSettings()
    sample: SampleSettings = SampleSettings()
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    retention: RetentionSettings = RetentionSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    origins: dict[str, str] = {}
