"""What an operator or a scraper looks at: is it alive, is it ready, what does it count."""

import msgspec

from service.core.results import Check, Status
from service.http.problems import Refusal
from service.http.reply import Reply, show
from service.http.routes import Call, route
from service.http.schemas import NoQuery
from service.ops.doctor.report import Report
from service.signals.metrics.registry import Shown


class Alive(msgspec.Struct, frozen=True):
    """The process runs."""

    status: str = "alive"


class Readiness(msgspec.Struct, frozen=True):
    """Whether every check is ok, and the checks; ``failing`` names those that are not."""

    ready: bool
    failing: list[str]
    checks: list[Check]


class MetricNames(msgspec.Struct, frozen=True):
    """Every dotted name."""

    names: list[str]


@route("GET /healthz", asks=NoQuery, shows=Alive, role=None)
async def healthz(call: Call[NoQuery]) -> Reply:
    """Whether the process runs; asks nothing of anybody."""
    del call
    return show(Alive())


@route(
    "GET /readyz",
    asks=NoQuery,
    shows=Readiness,
    role=None,
    status={200: "Ready", 503: "Not ready; `failing` says why"},
)
async def readyz(call: Call[NoQuery]) -> Reply:
    """Whether this instance can do its work."""
    checks = call.core.readiness()
    failing = [check.name for check in checks if not check.ok]
    readiness = Readiness(ready=not failing, failing=failing, checks=checks)
    return show(readiness, 503 if failing else 200)


@route("GET /metrics", asks=NoQuery, shows=str)
async def metrics(call: Call[NoQuery]) -> Reply:
    """Every metric, as Prometheus text or, if asked for by Accept, OpenMetrics."""
    accept = call.headers.get(b"accept", b"").decode("latin-1")
    body, media_type = call.core.metrics.exposition(accept)
    return Reply(body, media_type=media_type)


@route("GET /actuator/metrics", asks=NoQuery, shows=MetricNames)
async def list_metrics(call: Call[NoQuery]) -> Reply:
    """The dotted names of all metrics."""
    return show(MetricNames(call.core.metrics.names()))


@route("GET /actuator/metrics/{name}", asks=NoQuery, shows=Shown, refuses=("not_found",))
async def get_metric(call: Call[NoQuery]) -> Reply:
    """One metric with its values."""
    name: str = call.scope["path_params"]["name"]
    shown = call.core.metrics.shown(name)
    if shown is None:
        raise Refusal("not_found", "no metric has this name; /actuator/metrics lists them")
    return show(shown)


@route("GET /v1/ops/status", asks=NoQuery, shows=Status, refuses=("log_unavailable",))
async def get_status(call: Call[NoQuery]) -> Reply:
    """How this instance is doing, part by part."""
    return show(await call.core.status())


@route("GET /v1/ops/doctor", asks=NoQuery, shows=Report, refuses=("log_unavailable",))
async def get_diagnosis(call: Call[NoQuery]) -> Reply:
    """What is wrong with this instance, and the answer to each question an operator asks."""
    return show(await call.core.doctor())


ROUTES = (healthz, readyz, metrics, list_metrics, get_metric, get_status, get_diagnosis)
