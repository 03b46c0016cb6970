"""Rules, dashboards, runbook and catalogue say the same; what is drawn from data is up to date."""

import json
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.generate import DASHBOARDS
from service import daemons, ops
from service.signals.metrics.catalogue import CATALOGUE
from service.signals.metrics.metric import Metric

OPS = Path(ops.__file__).parent
DAEMONS = Path(daemons.__file__).parent
RUNBOOK = (OPS / "RUNBOOK.md").read_text()
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((OPS / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]  # fmt: skip
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDS = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
BOARDS = {path.stem: json.loads(path.read_text()) for path in (OPS / "dashboards").glob("*.json")}

PARTS = ("", "_bucket", "_sum", "_count")  # of a histogram
OUTSIDE = {"up"}  # what Prometheus itself says of its targets
PLACES = {"job", "instance", "le"}  # labels that every series, or a histogram's, may have
# What operators look for by its name in the contract.
PROMISED = {
    "ClaimStarved", "ClaimSpinning", "LeasesExpired", "LeaseMarginLow", "StaleWriters",
    "DispatchRejecting", "BacklogGrowing", "SsePushFailing", "SseResumeGaps", "SseReplaySlow",
    "DaemonLate", "LoopLagHigh", "ProjectionLagging", "LogUnavailable", "MetricsMissing",
}  # fmt: skip
SECTION = ("Symptom", "Query", "What it means", "What is preserved", "What to do")
OVER = "How to know it is over"

BY_SERIES: dict[str, Metric] = {
    metric.prometheus_name + part: metric
    for metric in CATALOGUE.values()
    for part in (PARTS[1:] if metric.kind == "histogram" else PARTS[:1])
}


QUERIES = re.compile(r"^## (\w+)\n.*?^\*\*Query\.\*\* (.*?)\n", re.DOTALL | re.MULTILINE)


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            yield name, panel


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression that is evaluated, with where it stands."""
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for name, panel in panels():
        for target in panel.get("targets", ()):
            yield f"{name}: {panel['title']}", target["expr"]
    for heading, query in re.findall(
        r"^## (\w+)\n.*?^\*\*Query\.\*\* (.*?)\n", RUNBOOK, re.DOTALL | re.MULTILINE
    ):
        for expr in re.findall(r"`([^`]+)`", query):
            yield f"runbook: {heading}", expr


EVERYWHERE = list(expressions())
WORDS = re.compile(r"(?<![\w:\"$])((?:agent_|holdfast:)[\w:]+|up)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r"(\w+)(=~|!~|!=|=)\"([^\"]*)\"")


def used(expr: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The series of an expression, each with its matchers."""
    for name, matchers in WORDS.findall(re.sub(r"#.*", "", expr)):
        yield name, MATCHER.findall(matchers)


# -- rules, runbook, catalogue ------------------------------------------------------------------


def test_every_alert_of_the_contract_is_a_rule() -> None:
    assert set(ALERTS) >= PROMISED


def test_every_alert_has_a_section_in_the_runbook_and_every_section_an_alert() -> None:
    assert set(re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)) == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_a_section_has_all_its_parts_in_order(alert: str) -> None:
    section = RUNBOOK.partition(f"\n## {alert}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\*\*(.+?)\.\*\*", section, re.MULTILINE)
    assert tuple(found) == (*SECTION, OVER)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_in_numbers_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("warning", "critical")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert "{{" in notes["summary"] + notes["description"]
    path, _, anchor = notes["runbook_url"].partition("#")
    assert (OPS.parents[1] / path).samefile(OPS / "RUNBOOK.md")
    headings = re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)
    assert anchor in {heading.lower() for heading in headings}
    assert anchor == alert.lower()


def in_alert(alert: str) -> set[str]:
    """The series an alert looks at, by itself or through records."""
    found: set[str] = set()
    todo = [ALERTS[alert]["expr"]]
    while todo:
        for name, _ in used(todo.pop()):
            found.add(name)
            todo += [RECORDS[name]] if name in RECORDS else []
    return found


@pytest.mark.parametrize(
    "metric", [each for each in CATALOGUE.values() if each.alert], ids=lambda each: each.name
)
def test_a_metric_names_an_alert_that_looks_at_it(metric: Metric) -> None:
    assert metric.alert is not None
    assert metric.alert in ALERTS
    assert metric.runbook == ALERTS[metric.alert]["annotations"]["runbook_url"]
    assert metric in {BY_SERIES.get(name) for name in in_alert(metric.alert)}


@pytest.mark.parametrize("alert", sorted(set(ALERTS) - {"MetricsMissing", "LogFull"}))
def test_an_alert_is_named_by_a_metric(alert: str) -> None:
    # Of the two left out, one is about no metric at all, the other about one that names another.
    assert alert in {metric.alert for metric in CATALOGUE.values()}


def test_daemon_late_leaves_a_daemon_time_for_many_of_its_periods() -> None:
    found = re.search(r"daemon!~.*? > (\d+) # wait", ALERTS["DaemonLate"]["expr"])
    assert found is not None
    modules = [import_module(f"service.daemons.{path.stem}") for path in DAEMONS.glob("[!_]*.py")]
    periods = [module.PERIOD_S for module in modules if hasattr(module, "PERIOD_S")]
    assert len(periods) >= 5
    assert 6 * max(periods) <= float(found[1])


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("where", "expr"), EVERYWHERE, ids=[where for where, _ in EVERYWHERE])
def test_only_declared_metrics_labels_and_values_are_used(where: str, expr: str) -> None:
    series = list(used(expr))
    assert series, f"{where} looks at nothing"
    for name, matchers in series:
        assert name in BY_SERIES or name in RECORDS or name in OUTSIDE, f"{where}: {name}"
        metric = BY_SERIES.get(name)
        known = {each.name: each.values for each in metric.labels} if metric else {}
        for label, operator, value in matchers:
            assert label in PLACES | set(known), f"{where}: {name} has no label {label}"
            if label in known:
                values = value.split("|") if "~" in operator else [value]
                assert set(values) <= set(known[label]), f"{where}: {name}: {label} {value}"
            if label == "le" and metric is not None:
                assert float(value) in metric.buckets, f"{where}: {name} has no bucket {value}"


@pytest.mark.parametrize(("where", "expr"), EVERYWHERE, ids=[where for where, _ in EVERYWHERE])
def test_a_grouping_names_labels_that_are_there(where: str, expr: str) -> None:
    labels = {label.name for metric in CATALOGUE.values() for label in metric.labels}
    for names in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expr):
        for name in filter(None, map(str.strip, names.split(","))):
            assert name in labels | PLACES, f"{where}: {name}"


def test_every_declared_metric_is_looked_at_somewhere() -> None:
    looked_at = {
        BY_SERIES[name].name
        for where, expr in EVERYWHERE
        if not where.startswith("runbook")
        for name, _ in used(expr)
        if name in BY_SERIES
    }
    # A histogram is looked at by the quantiles that are made of it.
    looked_at |= {name.removesuffix(".recent") for name in looked_at}
    assert looked_at == set(CATALOGUE)


def test_no_panel_mixes_environments() -> None:
    for name, panel in panels():
        for target in panel.get("targets", ()):
            for series, matchers in used(target["expr"]):
                assert ("job", "=", "$job") in matchers, f"{name}: {panel['title']}: {series}"


def test_a_recorded_quantile_can_exceed_the_thresholds_of_its_alerts() -> None:
    """In its last bucket a histogram's quantile is that bucket's lower bound, never more."""
    for record, expr in RECORDS.items():
        if "histogram_quantile" not in expr:
            continue
        (name, _), *_ = used(expr)
        asked = re.findall(rf"{record} > ([\d.]+)", "\n".join(each for _, each in EVERYWHERE))
        assert asked, record
        assert max(map(float, asked)) < max(BY_SERIES[name].buckets), record


def test_every_record_is_used() -> None:
    names = {name for where, expr in EVERYWHERE if where not in RECORDS for name, _ in used(expr)}
    assert set(RECORDS) <= names


# -- dashboards -----------------------------------------------------------------------------------


def test_every_dashboard_is_drawn() -> None:
    assert set(BOARDS) == set(DASHBOARDS)


def test_dashboards_have_addresses_of_their_own() -> None:
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
    assert all(re.fullmatch(r"[\w-]{1,40}", board["uid"]) for board in BOARDS.values())


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_asks_whatever_data_source_and_instances_are_chosen(name: str) -> None:
    board = BOARDS[name]
    datasource, job, instance = board["templating"]["list"]
    assert (job["name"], job["includeAll"], job["multi"]) == ("job", False, False)
    assert (datasource["name"], datasource["type"]) == ("datasource", "datasource")
    assert (instance["name"], instance["includeAll"], instance["multi"]) == ("instance", True, True)
    assert re.search(r"\((\w+)\b", instance["query"]["query"])[1] in BY_SERIES  # pyright: ignore[reportOptionalSubscript]
    asked = [job, instance, *board["annotations"]["list"], *_asking(board)]
    assert {json.dumps(each["datasource"]) for each in asked} == {
        json.dumps({"type": "prometheus", "uid": "${datasource}"})
    }


def _asking(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        if panel["type"] != "row":
            yield panel
            yield from panel["targets"]


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_numbers_of_their_own_and_do_not_overlap(name: str) -> None:
    found = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    for panel in found:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in found], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_a_panel_says_what_it_shows_and_in_which_unit() -> None:
    for name, panel in panels():
        if panel["type"] == "row":
            continue
        where = f"{name}: {panel['title']}"
        assert panel["description"], where
        unit = panel["fieldConfig"]["defaults"]["unit"]
        expected = {_unit(target["expr"]) for target in panel["targets"]}
        assert expected == {unit}, (where, unit, expected)
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)


def _unit(expr: str) -> str:
    """What an expression is measured in, by what it asks."""
    name, _ = next(used(expr))
    if expr.startswith("sum by") and "rate(" in expr and " / " not in expr:
        return "ops"
    if "_ratio" in name:
        return "percentunit"
    return "s" if "_seconds" in name else "short"


def test_the_metrics_table_is_linked_from_the_readme() -> None:
    readme = (OPS.parents[1] / "README.md").read_text()
    assert "service/ops/METRICS.md" in readme
    assert "service/ops/RUNBOOK.md" in readme
