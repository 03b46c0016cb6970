"""The settings: read once from file, environment and flags, checked, and frozen.

Later sources win: the defaults below, `holdfast.toml` (or `--config FILE`), the environment
(`HOLDFAST_<SECTION>__<KEY>`, as in `HOLDFAST_EXECUTOR__CLAIM__LEASE_S=10`), `NATS_URL`, flags.
A key that does not exist and a value that is not allowed stop the start with a `ConfigError`.
"""

import difflib
import ipaddress
import json
import math
import os
import re
import reprlib
import secrets
import socket
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from msgspec import Meta, Struct, ValidationError, convert, field
from msgspec.structs import replace

from streams.jetstream.connection import without_password

CONFIG_FILE = "holdfast.toml"
ENVIRONMENT_PREFIX = "HOLDFAST_"
# Variables that begin like settings and are none: they choose the log's look and steer the tests.
RESERVED_VARIABLES = re.compile(r"HOLDFAST_(LOG|FAULTS|TEST_\w+)")

OTLP_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"  # OpenTelemetry's own name for it
OTLP_KEY = "observability.otlp_endpoint"

MAX_LEASE_S = 12 * 3600  # heartbeats stay in the log for 24 h, which must outlive any lease

_QUOTE = reprlib.Repr()
_QUOTE.maxstring = _QUOTE.maxother = 200  # a refusal stays readable, whatever it quotes

Section = TypeVar("Section", bound=Struct)
Port = Annotated[int, Meta(ge=0, le=65535)]
Text = Annotated[str, Meta(max_length=1024)]
InstanceId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._:-]{1,128}$",
        description="1 to 128 letters, digits, dots, colons, dashes or underscores",
    ),
]
Name = Annotated[str, Meta(min_length=1, max_length=1024)]
Names = Annotated[tuple[Name, ...], Meta(max_length=256)]


class ConfigError(Exception):
    """A setting that cannot be used; the message names key, value, origin and what is allowed."""


class Setting(Struct, frozen=True):
    """One effective setting, as `holdfast check-config` prints it."""

    key: str
    value: object
    origin: str


def new_instance_id() -> str:
    """A name for this process that no other process has: host, pid and random digits."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "host"
    return f"{host}:{os.getpid()}:{secrets.token_hex(4)}"


class HttpSettings(Struct, frozen=True):
    """Where the API listens; port 0 takes any free one."""

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Port = 8000


class NatsSettings(Struct, frozen=True):
    """The log: an existing server or cluster (`url`), or an embedded one on `port` (0: any)."""

    url: Text = ""
    port: Port = 4222
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1


class AuthSettings(Struct, frozen=True):
    """Who may call; without a tokens file only this machine may."""

    tokens_file: Path | None = None


class PoolSettings(Struct, frozen=True):
    """How many threads a scheduler has."""

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
    """What is written to the audit trail, and where spans go (OTLP over HTTP; empty: nowhere)."""

    audit_log_enabled: bool = True
    audit_success_log_enabled: bool = False
    otlp_endpoint: Text = ""


class SampleSettings(Struct, frozen=True):
    """Whether an empty log is given the sample plan."""

    enabled: bool = True


class ClaimSettings(Struct, frozen=True):
    """How the executor claims, and how long a lease lasts without a heartbeat."""

    lease_s: Annotated[float, Meta(gt=0, le=MAX_LEASE_S)] = 15
    heartbeat_s: Annotated[float, Meta(gt=0, le=3600)] = 5
    batch_size: Annotated[int, Meta(ge=1, le=1000)] = 100
    max_per_tick: Annotated[int, Meta(ge=1, le=10_000)] = 100
    ready_first: bool = True
    refining_max_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.3
    refining_min_per_tick: Annotated[int, Meta(ge=0, le=10_000)] = 1


class ExecutionSettings(Struct, frozen=True):
    """How long one attempt may run, and how many time-outs are tried again."""

    timeout_s: Annotated[float, Meta(gt=0, le=7 * 24 * 3600)] = 120
    timeout_retry_max: Annotated[int, Meta(ge=0, le=100)] = 1


class WorkerSettings(Struct, frozen=True):
    """The worker pool: threads, waiting places, and what becomes of a task that finds neither.

    `release` puts the claim back at once. Nothing else is offered: a caller that waits would
    stop the executor's tick, and running in the caller would put user code on its loop.
    """

    core_size: Annotated[int, Meta(ge=1, le=1024)] = 8
    queue_capacity: Annotated[int, Meta(ge=0, le=100_000)] = 0
    rejection_policy: Literal["release"] = "release"


class CommandSettings(Struct, frozen=True):
    """The programs that the `command` handler may start."""

    allow: Names = ()


class ExecutorSettings(Struct, frozen=True):
    """The executor: its name, its claims, its workers and its handlers."""

    claim: ClaimSettings = ClaimSettings()
    execution: ExecutionSettings = ExecutionSettings()
    worker: WorkerSettings = WorkerSettings()
    command: CommandSettings = CommandSettings()
    poll_interval_s: Annotated[float, Meta(gt=0, le=300)] = 1
    instance_id: InstanceId = field(default_factory=new_instance_id)
    handlers: Names = ()


class Settings(Struct, frozen=True):
    """Every setting, with where it came from; `Settings()` is the defaults."""

    http: HttpSettings = HttpSettings()
    data_dir: Path = Path("data")
    nats: NatsSettings = NatsSettings()
    auth: AuthSettings = AuthSettings()
    scheduling: SchedulingSettings = SchedulingSettings()
    sse: SseSettings = SseSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    sample: SampleSettings = SampleSettings()
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    origins: dict[str, str] = {}

    def describe(self) -> list[Setting]:
        """Every key with its effective value and origin, in the order declared, without secrets."""
        return [
            Setting(key, _shown(_value_at(self, key)), self.origins.get(key, "default"))
            for key in KEYS
        ]


def changed_keys(old: "Settings", new: "Settings") -> list[str]:
    """The keys whose values differ, but those that are made anew for each process."""
    return [
        key
        for key in KEYS
        if _value_at(old, key) != _value_at(new, key)
        and not (key == "executor.instance_id" and key not in new.origins)
    ]


def _leaves(section: type[Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each dotted key below `section` with its declared type."""
    for name, declared in get_type_hints(section, include_extras=True).items():
        if isinstance(declared, type) and issubclass(declared, Struct):
            yield from _leaves(declared, f"{prefix}{name}.")
        elif name != "origins":
            yield f"{prefix}{name}", declared


KEYS: Mapping[str, Any] = dict(_leaves(Settings))
"""Every setting's dotted key and declared type."""


def variable_name(key: str) -> str:
    """The environment variable of a dotted key."""
    return ENVIRONMENT_PREFIX + key.upper().replace(".", "__")


def load_settings(
    *,
    config_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    directory: Path | None = None,
) -> Settings:
    """Read every source and return the checked settings, or raise `ConfigError`.

    `config_file` must exist; without it `holdfast.toml` in `directory` (default: the working
    directory) is read when there is one. `flags` are dotted keys; one that is None was not given.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    sources = (
        *_from_file(config_file, directory or Path()),
        *_from_environment(environment),
        *_from_flags(flags or {}),
    )
    for setting in sources:
        values[setting.key] = _checked(setting)
        origins[setting.key] = setting.origin
    settings = replace(_built(Settings, values), origins=origins)
    _check_together(settings)
    return settings


def _from_file(config_file: Path | None, directory: Path) -> Iterator[Setting]:
    path = config_file or directory / CONFIG_FILE
    if config_file is None and not path.exists():
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--config: there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration file {path} is not valid TOML: {error}") from None
    yield from _flattened(content, "", str(path))


def _flattened(table: Mapping[str, object], prefix: str, origin: str) -> Iterator[Setting]:
    for name, value in table.items():
        key = prefix + name
        if key in KEYS or not isinstance(value, dict):
            yield Setting(key, value, origin)  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield from _flattened(cast("dict[str, object]", value), f"{key}.", origin)


def _from_environment(environment: Mapping[str, str]) -> Iterator[Setting]:
    for variable, value in sorted(environment.items()):
        if variable.startswith(ENVIRONMENT_PREFIX) and not RESERVED_VARIABLES.fullmatch(variable):
            key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            yield Setting(key, value, f"environment {variable}")
    if environment.get("NATS_URL"):
        yield Setting("nats.url", environment["NATS_URL"], "environment NATS_URL")
    if environment.get(OTLP_VARIABLE) and variable_name(OTLP_KEY) not in environment:
        yield Setting(OTLP_KEY, environment[OTLP_VARIABLE], f"environment {OTLP_VARIABLE}")


def _from_flags(flags: Mapping[str, object]) -> Iterator[Setting]:
    for key, value in flags.items():
        if value is not None:
            yield Setting(key, value, "flag")


def _checked(setting: Setting) -> object:
    """The value in its declared type, or a `ConfigError` that says what is allowed."""
    declared = KEYS.get(setting.key)
    if declared is None:
        raise ConfigError(_unknown(setting))
    try:
        return _converted(setting.value, declared, from_text=isinstance(setting.value, str))
    except (ValidationError, ValueError, RuntimeError):  # RuntimeError: the ~ of nobody
        raise _refused(setting, f"must be {_allowed(declared)}") from None


def _unknown(setting: Setting) -> str:
    near = difflib.get_close_matches(setting.key, KEYS, n=1, cutoff=0.6)
    inside = [key for key in KEYS if key.startswith(f"{setting.key}.")]
    if inside:
        advice = f"it is a section with the keys {', '.join(inside)}"
    elif near:
        advice = f"did you mean {near[0]!r}?"
    else:
        advice = "`holdfast check-config` lists every setting"
    return f"unknown setting {_quoted(setting)}: {advice}"


def _refused(setting: Setting, reason: str) -> ConfigError:
    return ConfigError(f"{_quoted(setting)}: {reason}")


def _quoted(setting: Setting) -> str:
    value = _QUOTE.repr(_shown(setting.value))
    return f"{setting.key} = {value} (from {setting.origin})"


def _converted(value: object, declared: Any, *, from_text: bool) -> object:  # noqa: ANN401
    if declared in (Path, Path | None):
        return _path(value, optional=declared is not Path)
    if _is_names(declared) and isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith("[") else _split(value)
        from_text = False
    number = convert(value, declared, strict=not from_text)
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(number)  # TOML and the environment can both spell nan
    return number


def _path(value: object, *, optional: bool) -> Path | None:
    if optional and value in ("", None):
        return None
    if isinstance(value, Path) or (isinstance(value, str) and value and "\0" not in value):
        return Path(value).expanduser()
    raise ValueError(value)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_names(declared: Any) -> bool:  # noqa: ANN401
    return get_origin(declared) is Annotated and get_origin(get_args(declared)[0]) is tuple


def _allowed(declared: Any) -> str:  # noqa: ANN401
    """The type and its bounds, in words."""
    if get_origin(declared) is Literal:
        return "one of: " + ", ".join(map(repr, get_args(declared)))
    if declared is bool:
        return "true or false"
    if declared in (Path, Path | None):
        return "a path"
    if _is_names(declared):
        return "a list of texts, none empty (in the environment: JSON, or separated by commas)"
    base, bounds = get_args(declared)[:2]
    if bounds.description:
        return bounds.description
    if base is str:
        return f"a text of {bounds.min_length or 0} to {bounds.max_length} characters"
    kind = "a whole number" if base is int else "a number"
    lowest = f"from {bounds.ge}" if bounds.ge is not None else f"above {bounds.gt}"
    return f"{kind} {lowest} up to {bounds.le}"


def _built(section: type[Section], values: Mapping[str, object], prefix: str = "") -> Section:
    """A section from the flat values below `prefix`; what is absent keeps its default."""
    given: dict[str, Any] = {}
    for name, declared in get_type_hints(section, include_extras=True).items():
        key = prefix + name
        if isinstance(declared, type) and issubclass(declared, Struct):
            given[name] = _built(declared, values, f"{key}.")
        elif key in values:
            given[name] = values[key]
    return section(**given)


def _value_at(settings: Settings, key: str) -> object:
    value: object = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _shown(value: object) -> object:
    """The value as it may be printed: a server's URL may carry a password."""
    return without_password(value) if isinstance(value, str) else value


def _check_together(settings: Settings) -> None:
    """The rules that one key alone cannot break."""

    def refuse(key: str, reason: str) -> ConfigError:
        origin = settings.origins.get(key, "default")
        return _refused(Setting(key, _value_at(settings, key), origin), reason)

    claim = settings.executor.claim
    if claim.lease_s <= claim.heartbeat_s:
        raise refuse(
            "executor.claim.lease_s",
            f"must be above executor.claim.heartbeat_s ({claim.heartbeat_s:g})",
        )
    servers = _split(settings.nats.url)
    if settings.nats.url and not (servers and all(map(_is_server_url, servers))):
        raise refuse("nats.url", "must be nats://host:port (or tls, ws, wss), several by commas")
    if settings.nats.replicas > 1 and not settings.nats.url:
        raise refuse("nats.replicas", "must be 1 for the embedded server; a cluster needs nats.url")
    endpoint = settings.observability.otlp_endpoint
    if endpoint and not _is_web_url(endpoint):
        raise refuse(OTLP_KEY, "must be http://host:port or https://…, a collector's base URL")
    tokens_file = settings.auth.tokens_file
    if tokens_file is not None and not tokens_file.is_file():
        raise refuse("auth.tokens_file", "must name a file that exists")
    if tokens_file is None and not _is_loopback(settings.http.host):
        raise refuse(
            "http.host",
            "must be a loopback address (127.0.0.1, ::1, localhost) unless auth.tokens_file is set",
        )


def _is_server_url(url: str) -> bool:
    return _is_url(url, {"nats", "tls", "ws", "wss"})


def _is_web_url(url: str) -> bool:
    return _is_url(url, {"http", "https"})


def _is_url(url: str, schemes: set[str]) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname) and port != 0


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
