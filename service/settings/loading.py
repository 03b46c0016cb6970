"""Reads the settings once from file, environment and flags, and checks and freezes them.

Later sources win: the defaults, `holdfast.toml` (or `--config FILE`), the environment
(`HOLDFAST_<SECTION>__<KEY>`, as in `HOLDFAST_EXECUTOR__CLAIM__LEASE_S=10`), `NATS_URL`, flags.
A key that does not exist and a value that is not allowed stop the start with a `ConfigError`.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from msgspec import ValidationError, convert
from msgspec.structs import replace

from service.settings.config import ConfigError, Settings
from service.settings.keys import (
    ENVIRONMENT_PREFIX,
    KEYS,
    Setting,
    is_table,
    quoted,
    refused,
    variable_name,
)
from service.settings.rules import OTLP_KEY, OTLP_TRACES_KEY, check_together

CONFIG_FILE = "holdfast.toml"
RETIRED_ALLOW = "executor.command.allow"
HOW_TO_NAME_COMMANDS = (
    "programs are named with their arguments now, as in "
    '[executor.command.words] argv = ["wc", "-w", "--", "{file}"]; '
    'a task says {"command": "words", "parameters": {"file": "/a/file"}}'
)
# Variables that begin like settings and are none: they choose the log's look and steer the tests.
RESERVED_VARIABLES = re.compile(r"HOLDFAST_(LOG|TOKEN|URL|FAULTS|TEST_\w+)")
# Kubernetes adds these to every container for each Service of its namespace; they are ours in
# name only when the Service is called `holdfast` or `holdfast-…`.
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
SERVICE_VARIABLES = re.compile(
    r"HOLDFAST_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
SERVICE_PORT = re.compile(r"HOLDFAST_(\w+_)?PORT=(tcp|udp|sctp)://.*", re.DOTALL)

# OpenTelemetry's own names for settings of ours.
OTEL_VARIABLES = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": OTLP_KEY,
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": OTLP_TRACES_KEY,
}


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
    given: dict[str, Setting] = {}
    for setting in (
        *_from_file(config_file, directory or Path()),
        *_from_environment(os.environ if environment is None else environment),
        *_from_flags(flags or {}),
    ):
        if setting.key not in KEYS:
            raise ConfigError(_unknown(setting))
        given[setting.key] = _joined(given.get(setting.key), setting)
    origins = {key: setting.origin for key, setting in given.items()}
    settings = replace(_converted(given), origins=origins)
    check_together(settings)
    return settings


def _joined(earlier: Setting | None, later: Setting) -> Setting:
    """The later one; of a table also the entries that only the earlier one has."""
    if earlier is None or not is_table(KEYS[later.key]):
        return later
    both = [_from_text(each.value, KEYS[later.key]) for each in (earlier, later)]
    if not all(isinstance(each, dict) for each in both):
        return later
    tables = cast("list[dict[str, object]]", both)
    return Setting(later.key, tables[0] | tables[1], f"{earlier.origin}, {later.origin}")


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
        if key == "executor.command" and isinstance(value, dict) and "allow" in value:
            yield Setting(RETIRED_ALLOW, None, origin)
        elif key in KEYS or not isinstance(value, dict):
            yield Setting(key, value, origin)  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield from _flattened(cast("dict[str, object]", value), f"{key}.", origin)


def _from_environment(environment: Mapping[str, str]) -> Iterator[Setting]:
    for variable, value in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or RESERVED_VARIABLES.fullmatch(variable):
            continue
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
        if key in KEYS or not _is_of_a_service(variable, value):
            yield Setting(key, value, f"environment {variable}")
    if environment.get("NATS_URL"):
        yield Setting("nats.url", environment["NATS_URL"], "environment NATS_URL")
    for variable, key in OTEL_VARIABLES.items():
        if environment.get(variable) and variable_name(key) not in environment:
            yield Setting(key, environment[variable].strip(), f"environment {variable}")


def _is_of_a_service(variable: str, value: str) -> bool:
    """Whether Kubernetes set it, for a Service whose name begins like our settings."""
    return bool(
        SERVICE_VARIABLES.fullmatch(variable) or SERVICE_PORT.fullmatch(f"{variable}={value}")
    )


def _from_flags(flags: Mapping[str, object]) -> Iterator[Setting]:
    for key, value in flags.items():
        if value is not None:
            yield Setting(key, value, "flag")


def _converted(given: Mapping[str, Setting]) -> Settings:
    """The settings in their declared types, or a `ConfigError` that says what is allowed."""
    merged: dict[str, Any] = {}
    for key, setting in given.items():
        *sections, name = key.split(".")
        table = merged
        for section in sections:
            table = table.setdefault(section, {})
        if not _is_path(KEYS[key]) and not _is_unicode(setting.value):
            raise refused(setting, f"must be {allowed(KEYS[key])}")
        table[name] = _from_text(setting.value, KEYS[key])
    try:
        return convert(merged, Settings, strict=False, dec_hook=_path)
    except ValidationError as error:
        reason, _, place = str(error).rpartition(" - at `$.")
        key = place.rstrip("`").partition("[")[0]
        why = f": {reason}" if is_table(KEYS[key]) else ""
        raise refused(given[key], f"must be {allowed(KEYS[key])}{why}") from None


def _from_text(value: object, declared: Any) -> object:  # noqa: ANN401
    """What a text stands for where texts are all that the environment and flags can hold."""
    if not isinstance(value, str):
        return value
    if declared == Path | None and not value:
        return None
    if not _is_names(declared) and not is_table(declared):
        return value
    if not is_table(declared) and not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value  # no list or table, and refused as such


def _path(_: type, value: object) -> Path:
    if not isinstance(value, str | Path) or value == "" or "\0" in str(value):
        raise ValueError(value)
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # the ~ of a user that does not exist
        raise ValueError(value) from error


def _unknown(setting: Setting) -> str:
    near = difflib.get_close_matches(setting.key, KEYS, n=1, cutoff=0.6)
    inside = [key for key in KEYS if key.startswith(f"{setting.key}.")]
    if setting.key == RETIRED_ALLOW:
        advice = HOW_TO_NAME_COMMANDS
    elif inside:
        advice = f"it is a section with the keys {', '.join(inside)}"
    elif near:
        advice = f"did you mean {near[0]!r}?"
    else:
        advice = "`holdfast check-config` lists every setting"
    return f"unknown setting {quoted(setting)}: {advice}"


def _is_unicode(value: object) -> bool:
    """False for a text of the environment with bytes that are not UTF-8."""
    return not isinstance(value, str) or value == value.encode(errors="replace").decode()


def _is_path(declared: Any) -> bool:  # noqa: ANN401
    return declared in (Path, Path | None)


def _is_names(declared: Any) -> bool:  # noqa: ANN401
    return get_origin(declared) is Annotated and get_origin(get_args(declared)[0]) is tuple


def allowed(declared: Any) -> str:  # noqa: ANN401
    """The type and its bounds, in words."""
    if get_origin(declared) is Literal:
        return "one of: " + ", ".join(map(repr, get_args(declared)))
    if declared is bool:
        return "true or false"
    if _is_path(declared):
        return "a path"
    if is_table(declared):
        return f"a table of {get_args(declared)[1].__name__.removesuffix('Settings').lower()}s"
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
