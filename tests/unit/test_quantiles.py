"""Panels of quantiles show the truth within 20 %, whatever the distribution (by promtool)."""

import random
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from docs.dashboards.drawing import Query
from docs.dashboards.event_streams import EVENT_STREAMS
from docs.dashboards.internals import INTERNALS
from docs.dashboards.overview import OVERVIEW
from service.signals.metrics.catalogue import CATALOGUE
from service.signals.metrics.recent import Recent
from service.signals.metrics.registry import Metrics
from tests.programs import program

SEEN = 4_000
QUANTILE = re.compile(r"max by \([^)]*\) \((\w+)_recent(_seconds)?\{quantile=\"([\d.]+)\"")
DISTRIBUTIONS: dict[str, Callable[[random.Random], float]] = {
    "attempts that take a second": lambda _: 1.002,
    "a loop that is 2.6 ms late": lambda dice: dice.lognormvariate(-6.0, 0.3),
    "echo beside talks with a model": lambda dice: dice.choice((0.0015, 0.0016, 20.0)),
    "long tail": lambda dice: dice.lognormvariate(-2.0, 1.5),
    "even": lambda dice: dice.uniform(0.2, 0.8),
}


def queries() -> Iterator[Query]:
    """Every query of a quantile in the dashboards."""
    for board in (OVERVIEW, INTERNALS, EVENT_STREAMS):
        for row in board.rows:
            for panel in row.panels:
                yield from (each for each in panel.queries if "quantile=" in each.expr)


def test_no_panel_guesses_between_buckets() -> None:
    for board in (OVERVIEW, INTERNALS, EVENT_STREAMS):
        assert b"histogram_quantile" not in msgspec.json.encode(board)
    assert len(list(queries())) > 10


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_panels_of_quantiles_are_within_a_fifth_of_the_truth(name: str, tmp_path: Path) -> None:
    dice = random.Random(7)
    values = [DISTRIBUTIONS[name](dice) for _ in range(SEEN)]
    metrics = Metrics()
    for metric in CATALOGUE.values():
        if metric.recent is not None:
            labels = {label.name: label.values[0] for label in metric.labels}
            for value in values:
                metrics.observe(metric.name, value, **labels)
    scraped = metrics.exposition()[0].decode()
    for expr, shown in answers(scraped, tmp_path).items():
        found = QUANTILE.match(expr)
        assert found, expr
        truth = sorted(values)[int(float(found[3]) * SEEN)]
        assert shown == pytest.approx(truth, rel=0.2), expr


def answers(scraped: str, folder: Path) -> dict[str, float]:
    """What Prometheus answers to each query of a quantile, given one scrape."""
    place = 'job="holdfast",instance="a"'
    lines = [re.sub(r"\{", f"{{{place},", line, count=1) for line in scraped.splitlines()]
    series = [
        {"series": name, "values": f"{value}x4"}
        for name, _, value in (line.rpartition(" ") for line in lines if "_recent" in line)
        if not name.startswith("#") and value != "NaN"
    ]
    exprs = [
        each.expr.replace('"$job"', '"holdfast"').replace('"$instance"', '".*"')
        for each in queries()
    ]
    # Nothing is expected, so promtool prints what it got.
    asked = [{"expr": expr, "eval_time": "1m", "exp_samples": []} for expr in exprs]
    path = folder / "quantiles.yaml"
    path.write_text(
        yaml.safe_dump(
            {"tests": [{"interval": "15s", "input_series": series, "promql_expr_test": asked}]}
        )
    )
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    said = done.stdout + done.stderr
    got = re.findall(r'expr: "(.*?)", time: .*?\n\s+exp:.*?\n\s+got:(.*)', said)
    assert len(got) == len(exprs), said
    return {
        expr.replace('\\"', '"'): max(float(each) for each in re.findall(r"\} ([\d.eE+-]+)", shown))
        for expr, shown in got
    }


def test_what_is_older_than_a_minute_is_forgotten() -> None:
    now = [0.0]
    recent = Recent(lambda: now[0])
    for _ in range(100):
        recent.observe(5.0)
    now[0] = 30.0
    for _ in range(100):
        recent.observe(1.0)
    assert recent.quantiles([0.99])[0] == pytest.approx(5.0, rel=0.03)
    now[0] = 75.0
    assert recent.quantiles([0.99])[0] == pytest.approx(1.0, rel=0.03)
    now[0] = 200.0
    assert recent.quantiles([0.99])[0] != recent.quantiles([0.99])[0]  # NaN: nothing is known


def test_nothing_and_less_than_nothing_are_zero() -> None:
    recent = Recent()
    for value in (0.0, -3.0, 1e-9):
        recent.observe(value)
    assert recent.quantiles([0.5])[0] == 0.0
