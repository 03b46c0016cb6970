"""The three verbs that move the metrics of the catalogue, and how those are shown.

What the catalogue does not declare raises, or becomes ``other`` where a label allows for that: the
number of series is bounded whatever workers send. Every series whose labels are known beforehand
exists from the start, at 0.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from math import inf
from platform import python_version
from time import monotonic, time
from typing import Any, cast

import msgspec
import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Exemplar, Sample

from service.signals.metrics.catalogue import CATALOGUE, OTHER
from service.signals.metrics.metric import Label, Metric, MetricKind
from service.signals.metrics.recent import Recent
from service.signals.metrics.series import Buckets, Example, Number

_generate_openmetrics = cast("Callable[[CollectorRegistry], bytes]", openmetrics.generate_latest)  # pyright: ignore[reportUnknownMemberType]

OPENMETRICS_TYPE = "application/openmetrics-text"


class UndeclaredMetric(Exception):
    """A name, a label or a verb that the catalogue does not have: a bug of the caller."""


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One series now: ``value``, or for a histogram ``count``, ``sum`` and cumulative buckets."""

    labels: dict[str, str]
    value: float | None = None
    count: float | None = None
    sum: float | None = None
    buckets: dict[str, float] | None = None


class ShownMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric as /actuator/metrics shows it."""

    name: str
    prometheus_name: str
    kind: MetricKind
    unit: str
    help: str
    labels: tuple[str, ...]
    alert: str | None
    runbook: str | None
    values: list[Value]


Labels = tuple[tuple[str, str], ...]


class Metrics:
    """The metrics of one instance; any thread may count, observe and set."""

    def __init__(self, version: str = "") -> None:
        """With a ``version`` they show, beside the catalogue, the process and what was built."""
        self._registry = CollectorRegistry(auto_describe=False)
        if version:
            prometheus_client.ProcessCollector(registry=self._registry)
            build = prometheus_client.Info("holdfast_build", "What runs", registry=self._registry)
            build.info({"version": version, "python": python_version()})
        self._registry.register(self)
        # By name and labels, these in the order in which they are declared. Only values of the
        # closed sets get in, so the number of series is bounded.
        self._shown = {name: dict[Labels, Number | Buckets]() for name in CATALOGUE}
        # The same per kind, for each order in which the labels were given.
        self._series: dict[MetricKind, dict[str, dict[Labels, Any]]] = {
            "counter": {},
            "gauge": {},
            "histogram": {},
        }
        for name, metric in CATALOGUE.items():
            series = self._series[metric.kind][name] = {}
            for labels in _eager(metric):
                series[labels] = self._made(metric, labels)

        self._recent: dict[str, dict[str, Recent]] = {
            name: {} for name, metric in CATALOGUE.items() if metric.quantiles
        }

    def count(
        self, name: str, amount: float = 1, *, trace_id: str | None = None, **labels: str
    ) -> None:
        """Add ``amount`` (not negative) to a counter; ``trace_id`` becomes its exemplar."""
        try:
            series = self._series["counter"][name][tuple(labels.items())]
        except KeyError:
            series = self._find("counter", name, labels)
        if amount < 0:
            raise ValueError(f"a counter only grows, not by {amount}")
        with series.lock:
            series.value += amount
        if trace_id is not None:
            series.example = Example(trace_id, amount, time())

    def observe(
        self, name: str, *values: float, trace_id: str | None = None, **labels: str
    ) -> None:
        """Put ``values`` into a histogram; ``trace_id`` becomes the exemplar of their buckets."""
        try:
            series = self._series["histogram"][name][tuple(labels.items())]
        except KeyError:
            series = self._find("histogram", name, labels)
        series.add(values, trace_id)
        if (recent := self._recent.get(name)) is not None:
            by = labels.get(CATALOGUE[name].quantiles_by or "", "")
            if by not in recent:
                recent[by] = Recent(monotonic)
            recent[by].observe(*values)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Let a gauge show ``value``."""
        try:
            series = self._series["gauge"][name][tuple(labels.items())]
        except KeyError:
            series = self._find("gauge", name, labels)
        series.value = value

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Every series as (body, content type): OpenMetrics if ``accept`` asks for it."""
        self._set_quantiles(self._recent)
        if OPENMETRICS_TYPE in accept:
            return _generate_openmetrics(self._registry), openmetrics.CONTENT_TYPE_LATEST
        text = prometheus_client.generate_latest(self._registry)
        return text, prometheus_client.CONTENT_TYPE_LATEST

    def names(self) -> list[str]:
        """Every dotted name, in the catalogue's order."""
        return list(CATALOGUE)

    def shown(self, name: str) -> ShownMetric | None:
        """One metric with its values, or None if there is none of that name."""
        metric = CATALOGUE.get(name)
        if metric is None:
            return None
        self._set_quantiles(self._recent.keys() & {name.removesuffix(".recent")})
        return ShownMetric(
            name=name,
            prometheus_name=metric.prometheus_name,
            kind=metric.kind,
            unit=metric.unit,
            help=metric.help,
            labels=tuple(label.name for label in metric.labels),
            alert=metric.alert,
            runbook=metric.runbook,
            values=_values(metric, self._family(metric).samples),
        )

    def _set_quantiles(self, names: Iterable[str]) -> None:
        """Let the quantiles of these histograms show the last minute."""
        for name in names:
            metric = CATALOGUE[name]
            for by, recent in list(self._recent[name].items()):
                labels = {metric.quantiles_by: by} if metric.quantiles_by else {}
                shares = metric.quantiles
                values = recent.quantiles(list(map(float, shares)))
                for share, value in zip(shares, values, strict=True):
                    self.set(f"{name}.recent", value, quantile=share, **labels)

    def collect(self) -> Iterator[prometheus_client.Metric]:
        """Every metric of the catalogue, as prometheus_client asks for it."""
        return map(self._family, CATALOGUE.values())

    def _family(self, metric: Metric) -> prometheus_client.Metric:
        name, kind = metric.prometheus_name, metric.kind
        family = prometheus_client.Metric(
            name.removesuffix("_total") if kind == "counter" else name,
            metric.help,
            kind,
            metric.unit,
        )
        for labels, series in list(self._shown[metric.name].items()):
            family.samples += _samples(name, dict(labels), series)
        return family

    def _made(self, metric: Metric, labels: Labels) -> Number | Buckets:
        series = Buckets(metric.buckets) if metric.kind == "histogram" else Number()
        return self._shown[metric.name].setdefault(labels, series)

    def _find(self, kind: MetricKind, name: str, labels: dict[str, str]) -> Any:  # noqa: ANN401
        """The series, made if it is new; an unknown value of a label becomes ``other``."""
        metric = CATALOGUE.get(name)
        if metric is None or metric.kind != kind:
            raise UndeclaredMetric(f"the catalogue has no {kind} '{name}'")
        if labels.keys() != {label.name for label in metric.labels}:
            names = ", ".join(label.name for label in metric.labels) or "none"
            raise UndeclaredMetric(f"'{name}' has the labels {names}; given: {sorted(labels)}")
        closed = {label.name: _closed(metric, label, labels[label.name]) for label in metric.labels}
        series = self._made(metric, tuple(closed.items()))
        if closed == labels:
            self._series[kind][name][tuple(labels.items())] = series
        return series


def _closed(metric: Metric, label: Label, value: str) -> str:
    if value in label.values:
        return value
    if OTHER in label.values:
        return OTHER
    raise UndeclaredMetric(f"'{metric.name}' does not know the {label.name} '{value}'")


def _eager(metric: Metric) -> Iterator[Labels]:
    if all(label.eager for label in metric.labels):
        names = [label.name for label in metric.labels]
        for values in product(*(label.values for label in metric.labels)):
            yield tuple(zip(names, values, strict=True))


def _samples(name: str, labels: dict[str, str], series: Number | Buckets) -> Iterator[Sample]:
    if isinstance(series, Number):
        yield Sample(name, labels, series.value, None, _exemplar(series.example))
        return
    count = 0
    for bound, count, example in series.cumulative():
        le = {"le": "+Inf" if bound == inf else str(float(bound))}
        yield Sample(f"{name}_bucket", labels | le, count, None, _exemplar(example))
    yield Sample(f"{name}_count", labels, count)
    yield Sample(f"{name}_sum", labels, series.sum)


def _exemplar(example: Example | None) -> Exemplar | None:
    if example is None:
        return None
    return Exemplar({"trace_id": example.trace_id}, example.value, example.at)


def _values(metric: Metric, samples: Iterable[Sample]) -> list[Value]:
    if metric.kind != "histogram":
        return [Value(labels=sample.labels, value=sample.value) for sample in samples]
    found: dict[Labels, dict[str, Any]] = {}
    for sample in samples:
        labels = {key: value for key, value in sample.labels.items() if key != "le"}
        series = found.setdefault(
            tuple(labels.items()), {"labels": labels, "count": None, "sum": None, "buckets": {}}
        )
        match sample.name.removeprefix(f"{metric.prometheus_name}_"):
            case "bucket":
                series["buckets"][sample.labels["le"]] = sample.value
            case "count" | "sum" as part:
                series[part] = sample.value
            case _:
                pass
    return [Value(**series) for series in found.values()]
