"""Draws the reference pages, the table of metrics and the dashboards: `make docs`."""

import inspect
import json
import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from litestar import Controller
from litestar.handlers import HTTPRouteHandler

import holdfast_worker
from docs.dashboards.drawing import drawn
from docs.dashboards.event_streams import EVENT_STREAMS
from docs.dashboards.internals import INTERNALS
from docs.dashboards.overview import OVERVIEW
from docs.life_cycle import redrawn
from projections.feed.client import ClosingReason, Gap
from service import ops
from service.http.app import CONTROLLERS
from service.http.deadlines import CALL_LIMITS
from service.http.guards import requires
from service.http.problems import PROBLEMS
from service.settings.config import Settings
from service.settings.keys import KEYS, is_table, value_at, variable_name
from service.settings.loading import allowed
from service.signals.metrics.catalogue import CATALOGUE
from service.signals.metrics.metric import Metric
from streams.plan.events import TYPE_NAMES

HERE = Path(__file__).parent / "reference"
OPS = Path(ops.__file__).parent
DASHBOARDS = {"overview": OVERVIEW, "internals": INTERNALS, "sse": EVENT_STREAMS}
"""By the name of the file."""

_METRICS = """# Metrics

Drawn from `service/signals/metrics/catalogue.py` by `make docs`. Every series that is
known beforehand is there from the start, at 0; label values are the ones listed and no others.
`process_*` (CPU, memory, open files) and `holdfast_build_info` (version) stand beside them.

| name | in Prometheus | kind | labels | what is counted | alert |
|---|---|---|---|---|---|
"""

_SETTINGS = """# Settings

Drawn from `service/settings/config.py` by `make docs`.

Later sources win: the defaults below, `holdfast.toml` in the working directory (or `--config
FILE`), environment variables, flags. In the file a dot is a table: `http.port` is `port` in
`[http]`. An unknown key or a value that is not allowed stops the start and is named with its
source. `holdfast check-config` prints the values in force.
"""

_EVENTS = """# Events

Drawn from `streams/plan/events.py` by `make docs`.

Each event is one message of the stream `PLANS`: a fact about a plan on the subject `plans.<plan>`,
a fact about a task on `plans.<plan>.<task>`. The payload below is the data of the message, and the
`data` of the server-sent event. Changes are additive. Durations are seconds (`_s`); a deadline is
the message's own timestamp plus the duration. A message that does not fit its schema is a bad
event: the fold ignores it, counts it and reports it.

## Signals of a stream

Beside the events a stream says how it stands. A signal carries an `id` only where it moves the
cursor.

| signal | data | when |
|---|---|---|
| `hello` | `epoch`, `head`, `first`, `heartbeat_s` | first of all: which log, its two ends |
| `caught_up` | `sequence` | once, when all that was in the log at the start has been sent |
| `gap` | `requested`, `first`, `head`, `reason` | some are missing; the rest follows |
| `closed` | `reason` | last of all, when the server ends the stream |

"""


_GAPS = {
    "expired": "events after the cursor have left the log; `first` is the oldest that is there",
    "forgotten": "facts after the cursor may be missing, because their plans were forgotten long "
    "after their end; all others follow",
    "ahead_of_log": "the cursor is beyond `head`: the log is another one, or an older copy",
    "unreadable": "the cursor is no sequence; the stream begins with what comes next",
}
_GOODBYES = {
    "plan_finished": "the plan's own stream is complete; a client that returns gets 204",
    "slow_consumer": "the client took nothing for some seconds; it may return with its cursor",
    "shutting_down": "the instance stops; another one, or the next start, goes on at the cursor",
    "unauthorized": "the token or session that opened the stream is no longer valid",
}
"""What the reasons of a signal mean; each reason must be there."""

_HTTP = """# HTTP

Drawn from the controllers in `service/http/` by `make docs`. Parameters, bodies and answers stand
in `/schema/openapi.json` of a running instance. Each route asks for one permission of a token or a
session ([give out tokens](../howto/tokens.md)); without a tokens file (`auth.tokens_file`) every
request is permitted. HEAD is answered wherever GET is. Problems are `application/problem+json`.

## How long an answer may take

From its arrival as a whole, a GET is answered within {reads:g} s and every other request within
{writes:g} s; `wait_s` of a claim comes on top, and a read with `at_sequence` and `/v1/ops/doctor`
may take {long:g} s. All that a request waits for shares this time: the read of the plan, the
append, the fold. Then it is answered 503 `log_unavailable`. What it asked for may be in the log all
the same, or not, and the same request may safely be repeated (a submission needs an id or an
`Idempotency-Key` for that). A lease that was granted too late is given back at no cost to the task.
An event stream begins within the time of a GET and has no end of its own.
"""

_WORKER = """# The worker kit

Drawn from the docstrings of `service/worker_kit/` by `make docs`. Names ending in `_s` are seconds.
The guide is [Write a worker](../howto/write-a-worker.md).
"""


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated page with its text."""
    yield HERE / "settings.md", _SETTINGS + "".join(_settings())
    yield HERE / "events.md", _EVENTS + "".join(_events())
    limits = CALL_LIMITS
    times = {"reads": limits.read_s, "writes": limits.write_s, "long": limits.long_read_s}
    yield HERE / "http.md", _HTTP.format(**times) + "".join(_http())
    yield HERE / "worker.md", _WORKER + "".join(_worker())
    architecture = HERE.parents[1] / "ARCHITECTURE.md"
    yield architecture, redrawn(architecture.read_text(encoding="utf-8"))
    yield OPS / "METRICS.md", _METRICS + "".join(map(_metric, CATALOGUE.values()))
    for name, dashboard in DASHBOARDS.items():
        yield OPS / "dashboards" / f"{name}.json", drawn(dashboard)


def _metric(metric: Metric) -> str:
    labels = "; ".join(f"`{each.name}`: {', '.join(each.values)}" for each in metric.labels)
    alert = f"[{metric.alert}](RUNBOOK.md#{metric.alert.lower()})" if metric.alert else ""
    unit = ", seconds" if metric.unit else ""
    return (
        f"| `{metric.name}` | `{metric.prometheus_name}` | {metric.kind}{unit} | {labels} "
        f"| {metric.help} | {alert} |\n"
    )


def _settings() -> Iterator[str]:
    defaults = Settings()
    section = None
    for key, declared in KEYS.items():
        name = key.rpartition(".")[0]
        if name != section:
            section = name
            yield f"\n## {name or 'top level'}\n\n{_section_says(name)}\n\n"
            yield "| key | default | allowed | environment |\n|---|---|---|---|\n"
        default = _default(key, value_at(defaults, key))
        yield f"| `{key}` | {default} | {allowed(declared)} | `{variable_name(key)}` |\n"

    for key, declared in KEYS.items():
        if is_table(declared):
            yield from _entries(key, get_args(declared)[1])


def _entries(key: str, entry: type) -> Iterator[str]:
    """What stands in each table below ``key``."""
    yield f"\n## {key}.NAME\n\n{inspect.getdoc(entry)}\n\n"
    yield f"In the environment `{key}` is one JSON object; later sources add entries.\n\n"
    yield "| key | default |\n|---|---|\n"
    for field in msgspec.structs.fields(entry):
        needed = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
        empty = needed or field.default in ("", None, ()) or field.default is msgspec.NODEFAULT
        default = "needed" if needed else "none" if empty else f"`{json.dumps(field.default)}`"
        yield f"| `{key}.NAME.{field.encode_name}` | {default} |\n"


def _section_says(name: str) -> str:
    section: type = Settings
    for part in filter(None, name.split(".")):
        section = get_type_hints(section)[part]
    return inspect.getdoc(section) or ""


def _default(key: str, value: object) -> str:
    if key == "executor.instance_id":
        return "host:pid:random"
    return f"`{json.dumps(value, default=str)}`" if value not in ("", None, ()) else "none"


def _reasons() -> Iterator[str]:
    for signal, reasons, meant in (("gap", Gap, _GAPS), ("closed", ClosingReason, _GOODBYES)):
        for reason in get_args(reasons):
            yield f"- `{signal}`, `{reason}`: {meant[reason]}.\n"


def _events() -> Iterator[str]:
    yield from _reasons()
    for event, name in TYPE_NAMES.items():
        schema = msgspec.json.schema(_readable(event))
        yield f"\n## {name}\n\n{inspect.getdoc(event)}\n\n"
        yield f"```json\n{json.dumps(schema, indent=1, ensure_ascii=False)}\n```\n"


@cache
def _readable(kind: Any) -> Any:  # noqa: ANN401 - a type
    """The same type without ``Raw``, which msgspec's schemas cannot show as a default."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct_without_raw(kind)
    if kind is msgspec.Raw:
        return Any
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return Annotated[_readable(inside[0]), *inside[1:]]
    if origin in (Union, UnionType):
        return Union[tuple(map(_readable, inside))]  # noqa: UP007 - built from a tuple
    if origin is not None and origin is not Literal:
        return origin[tuple(map(_readable, inside))]
    return kind


def _struct_without_raw(struct: type[msgspec.Struct]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for each in msgspec.structs.fields(struct):
        default = each.default
        if isinstance(default, msgspec.Raw):
            default = json.loads(bytes(default))
        fields.append(
            (each.encode_name, _readable(each.type))
            if each.required
            else (each.encode_name, _readable(each.type), default)
        )
    config = struct.__struct_config__
    twin = msgspec.defstruct(
        struct.__name__, fields, kw_only=True, tag_field=config.tag_field, tag=config.tag
    )
    twin.__doc__ = inspect.getdoc(struct)
    return twin


def _http() -> Iterator[str]:
    tag = None
    for controller in CONTROLLERS:
        (name,) = controller.tags or ("",)
        if name != tag:
            tag = name
            yield f"\n## {name}\n\n| request | permission | meaning |\n|---|---|---|\n"
        for path, handler in _handlers_of(controller):
            (guard,) = (each for each in handler.guards or () if isinstance(each, requires))
            (method,) = handler.http_methods
            says = (inspect.getdoc(handler.fn) or "").partition("\n")[0]
            yield f"| `{method} {path}` | {guard.permission or '-'} | {says} |\n"
    yield "\n## Problems\n\n| code | status | meaning |\n|---|---|---|\n"
    for code, row in PROBLEMS.items():
        yield f"| `{code}` | {row.status} | {row.title} |\n"


def _handlers_of(controller: type[Controller]) -> Iterator[tuple[str, HTTPRouteHandler]]:
    """The controller's handlers with their paths, in the order they are written."""
    for handler in vars(controller).values():
        if isinstance(handler, HTTPRouteHandler):
            (path,) = handler.paths or {""}
            above: object = controller.path  # of a controller without one it is no text
            whole = f"{above if isinstance(above, str) else ''}/{path.lstrip('/')}".rstrip("/")
            yield re.sub(r":\w+}", "}", whole) or "/", handler


def _worker() -> Iterator[str]:
    """Every public name of the kit with its contract, and the public methods of classes."""
    for name in holdfast_worker.__all__:
        public = getattr(holdfast_worker, name)
        if name.startswith("_"):
            continue
        yield f"\n## {name}\n\n```text\n{_signature(name, public)}\n```\n"
        yield f"\n{inspect.getdoc(public)}\n"
        if inspect.isclass(public):
            yield from _members(public)


def _members(public: type) -> Iterator[str]:
    found = {
        name: member
        for each in reversed(public.__mro__)
        if each.__module__.startswith("holdfast_worker")
        for name, member in vars(each).items()
    }
    for name, member in found.items():
        if name.startswith("_") or not inspect.getdoc(member):
            continue
        says = (inspect.getdoc(member) or "").replace("\n", " ")
        if isinstance(member, property | cached_property):
            yield f"\n- `{name}`: {says}\n"
        elif inspect.isfunction(member):
            yield f"\n- `{_signature(name, member)}`: {says}\n"


def _signature(name: str, public: Any) -> str:  # noqa: ANN401 - a class or a function
    try:
        text = f"{name}{inspect.signature(public)}"
    except ValueError:  # an exception without a constructor of its own
        text = name
    shortened = re.sub(r"(?:holdfast_worker\.\w+|collections\.abc|typing|datetime)\.", "", text)
    return shortened.replace("(self, ", "(").replace("(self)", "()")


def main() -> None:
    """Write all of them."""
    for path, text in pages():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
