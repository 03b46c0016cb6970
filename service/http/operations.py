"""What operators and scrapers ask: liveness, readiness, metrics, status and the diagnosis."""

import re

import msgspec
from litestar import Controller, Response
from litestar.openapi.datastructures import ResponseSpec

from projections.read_models import plans
from service.http.guards import requires
from service.http.openapi import BEARER
from service.http.parameters import MetricName
from service.http.problems import RequestRefused
from service.http.request import ApiRequest, header
from service.http.responses import READ_TROUBLE, ApiResponse, refusals
from service.http.routes import get
from service.ops.doctor.report import Report
from service.ops.last_hour import LastHour
from service.ops.status import Check, Status
from service.signals.metrics.registry import OPENMETRICS_TYPE, ShownMetric
from streams.plan.lifecycle import PlanStatus

METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"
_QUALITY = re.compile(r"[01](\.\d{0,3})?", re.ASCII)


class Alive(msgspec.Struct, frozen=True):
    """The process runs."""

    status: str = "alive"


class Readiness(msgspec.Struct, frozen=True):
    """Whether every check is ok, and the checks; ``failing`` names those that are not.

    ``warnings`` names those that are ok and show what an operator should know.
    """

    ready: bool
    failing: list[str]
    checks: list[Check]
    warnings: list[str] = []


class MetricNames(msgspec.Struct, frozen=True):
    """Every dotted name."""

    names: list[str]


class PlanCounts(msgspec.Struct, frozen=True):
    """Plans per status."""

    counts: dict[PlanStatus, int]


class ProbeController(Controller):
    """`/healthz` and `/readyz`: what load balancers ask, without a token."""

    tags = ("operations",)

    @get("/healthz", guards=[requires(None, any_query=True)], responses=refusals(guarded=False))
    async def healthz(self) -> Alive:
        """Whether the process runs."""
        return Alive()

    @get(
        "/readyz",
        guards=[requires(None, any_query=True)],
        response_description="Ready",
        responses=refusals(guarded=False)
        | {503: ResponseSpec(Readiness, description="Not ready; `failing` says why")},
    )
    async def readyz(self, request: ApiRequest) -> Response[Readiness]:
        """Whether this instance can do its work."""
        checks = request.operations.health.readiness()
        failing = [check.name for check in checks if not check.ok]
        warnings = [check.name for check in checks if check.warns]
        answer = Readiness(ready=not failing, failing=failing, checks=checks, warnings=warnings)
        return ApiResponse(answer, status_code=503 if failing else 200)


class MetricController(Controller):
    """`/metrics` for Prometheus, `/actuator/metrics` for people."""

    tags = ("operations",)
    security = BEARER

    @get(
        "/metrics",
        guards=[requires("metrics", any_query=True)],
        media_type=METRICS_TYPE,
        responses=refusals(),
    )
    async def metrics(self, request: ApiRequest) -> Response[str]:
        """Every metric, as Prometheus text or, if asked for by Accept, OpenMetrics."""
        accept = header(request.scope, b"accept").decode("latin-1")
        body, media_type = request.core.metrics.exposition(
            OPENMETRICS_TYPE if prefers_openmetrics(accept) else ""
        )
        return ApiResponse(body, media_type=media_type)  # pyright: ignore[reportReturnType]  # text

    @get("/actuator/metrics", guards=[requires("metrics")], responses=refusals())
    async def list_metrics(self, request: ApiRequest) -> MetricNames:
        """The dotted names of all metrics."""
        return MetricNames(request.core.metrics.names())

    @get(
        "/actuator/metrics/{name:str}",
        guards=[requires("metrics")],
        responses=refusals("not_found"),
    )
    async def get_metric(self, name: MetricName, request: ApiRequest) -> ShownMetric:
        """One metric with its values."""
        shown = request.core.metrics.shown(name)
        if shown is None:
            raise RequestRefused(
                "not_found", "no metric has this name; /actuator/metrics lists them"
            )
        return shown


def prefers_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics is named with a quality that plain text does not exceed (RFC 9110)."""
    qualities: dict[str, float] = {}
    for each in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in each.split(";"))
        given = [part[2:] for part in parameters if part.startswith("q=")]
        quality = 1.0 if not given else _quality(given[0])
        qualities[media_type] = max(quality, qualities.get(media_type, 0.0))
    wanted = qualities.get(OPENMETRICS_TYPE, 0.0)
    return wanted > 0 and wanted >= qualities.get("text/plain", 0.0)


def _quality(text: str) -> float:
    return float(text) if _QUALITY.fullmatch(text) else 0.0


class InstanceController(Controller):
    """`/v1/ops`: this instance, part by part."""

    path = "/v1/ops"
    tags = ("ops",)
    security = BEARER

    @get("/status", guards=[requires("read")], responses=refusals("log_unavailable"))
    async def get_status(self, request: ApiRequest) -> Status:
        """How this instance is doing, part by part."""
        return request.operations.health.status()

    @get("/plans", guards=[requires("read")], responses=refusals(*READ_TROUBLE))
    async def get_plan_counts(self, request: ApiRequest) -> PlanCounts:
        """How many plans there are in each status."""
        core = request.core
        await core.visible(None)
        return PlanCounts(counts=await plans.counts(core.database))

    @get("/history", guards=[requires("read")], responses=refusals())
    async def get_history(self, request: ApiRequest) -> LastHour:
        """What ran, waited, ended and was spent, minute by minute, over the last hour."""
        return request.operations.last_hour.shown(request.core.now())

    @get("/doctor", guards=[requires("read")], responses=refusals("log_unavailable"))
    async def get_diagnosis(self, request: ApiRequest) -> Report:
        """What is wrong with this instance, and the answer to each question an operator asks."""
        request.deadline.allow_long_read()
        return await request.operations.doctor.report()
