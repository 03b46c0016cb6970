"""The catalogue is the contract's table: names, kinds, labels and units, and a bound for series."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from service.signals.metrics.catalogue import CATALOGUE, LANE, MAX_SERIES, OTHER
from service.signals.metrics.metric import Metric, MetricKind
from service.signals.metrics.registry import Metrics
from streams.plan.error_types import ERROR_TYPES

# The contract's table, row by row: dotted name, kind, labels, name in Prometheus.
CONTRACT = Path(__file__).with_name("catalogue.txt").read_text().splitlines()

# What the contract does not list and is needed nevertheless, with the reason.
OURS: dict[str, str] = {
    "agent.http.request.total": "whether clients are refused or fail cannot be seen otherwise",
    "agent.http.request.duration": "how quick the API is cannot be seen otherwise",
    "agent.plan.unfinished": "how near the bound is cannot be seen otherwise",
    "agent.log.filled": "how near the bound is cannot be seen otherwise",
    "agent.log.replicas.behind": "how near the loss of the quorum is cannot be seen otherwise",
    "agent.retention.forgotten.total": "how fast plans are forgotten cannot be seen otherwise",
    "agent.http.token.refused.total": "whether tokens are guessed cannot be seen otherwise",
} | {
    metric.recent.name: "quantiles that are within 20 % of the truth, which few buckets cannot be"
    for metric in CATALOGUE.values()
    if metric.recent is not None
}


def row(metric: Metric) -> str:
    labels = ",".join(label.name for label in metric.labels) or "-"
    return f"{metric.name} {metric.kind} {labels} {metric.prometheus_name}"


def test_the_catalogue_declares_what_the_contract_lists_and_nothing_else() -> None:
    declared = {row(metric) for name, metric in CATALOGUE.items() if name not in OURS}
    assert declared == set(CONTRACT)


@pytest.mark.parametrize("metric", CATALOGUE.values(), ids=CATALOGUE)
def test_a_declaration_is_complete(metric: Metric) -> None:
    assert metric.kind in get_args(MetricKind)
    assert metric.help[0].isupper()
    assert len(metric.help) > 10
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.unit in ("", "seconds", "ratio")
    for label in metric.labels:
        assert len(set(label.values)) == len(label.values)
        assert len(label.values) > 1 or label.name == "quantile"


def test_a_time_is_in_seconds_and_its_name_ends_so() -> None:
    times = {name for name, metric in CATALOGUE.items() if metric.unit == "seconds"}
    words = ("latency", "duration", "lateness", "timestamp", "age", "oldest", "lag", "remaining")
    plain = {name: name.removesuffix(".recent").split(".")[-1] for name in CATALOGUE}
    named = {name for name, last in plain.items() if any(word in last for word in words)}
    assert times == named | {"agent.projection.lag.seconds"}


def test_kinds_of_failure_are_a_small_closed_set() -> None:
    (failures,) = (each for each in CATALOGUE.values() if each.name.endswith(".failure.total"))
    (values,) = (label.values for label in failures.labels if label.name == "error_type")
    assert OTHER in values
    assert set(ERROR_TYPES) <= set(values)
    assert len(values) <= 20


def test_the_lanes_are_those_of_the_board() -> None:
    assert set(LANE.values) == {"ready", "refining"}


def test_whatever_happens_one_instance_shows_at_most_400_series() -> None:
    metrics = Metrics(version="1")
    for metric in CATALOGUE.values():
        for labels in every_combination(metric):
            move(metrics, metric, labels)
    lines = metrics.exposition()[0].decode().splitlines()
    shown = [line for line in lines if not line.startswith("#")]
    beside = [line for line in shown if line.startswith(("process_", "holdfast_build_info"))]
    assert beside
    assert len(shown) - len(beside) == sum(metric.series for metric in CATALOGUE.values())
    assert len(shown) <= MAX_SERIES


def every_combination(metric: Metric) -> Iterator[dict[str, str]]:
    """Every value of every label, and a surprise where the label allows for one."""
    names = [label.name for label in metric.labels]
    sets = [(*each.values, *(["surprise"] * (OTHER in each.values))) for each in metric.labels]
    for values in product(*sets):
        yield dict(zip(names, values, strict=True))


def move(metrics: Metrics, metric: Metric, labels: dict[str, str]) -> None:
    verbs = {"counter": metrics.count, "gauge": metrics.set, "histogram": metrics.observe}
    verbs[metric.kind](metric.name, 1.0, **labels)
