"""Draws a dashboard from panels as data: Grafana's JSON, laid out from left to right.

A panel names only what makes it different. Every query goes to the data source that the variable
`datasource` names and, by `INSTANCE`, to the job and the instances that `job` and `instance` name,
so a dashboard loads into any Grafana as it is.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

COLUMNS = 24
HEIGHT = 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
JOB = 'job="$job"'
INSTANCE = f'{JOB},instance=~"$instance"'

Unit = Literal["short", "s", "percentunit", "ops", "dateTimeFromNow"]


class Query(msgspec.Struct, frozen=True):
    """One expression and what its lines are called."""

    expr: str
    legend: str


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """A graph, or a number if ``stat``; ``alarm`` is where it turns red."""

    title: str
    says: str
    queries: tuple[Query, ...]
    unit: Unit = "short"
    width: int = 8
    stat: bool = False
    alarm: float | None = None


class Row(msgspec.Struct, frozen=True):
    """A heading, often an operator's question, and the panels that answer it."""

    title: str
    panels: tuple[Panel, ...]


class Dashboard(msgspec.Struct, frozen=True, kw_only=True):
    """Rows under a title; ``uid`` is its address in Grafana for ever."""

    uid: str
    title: str
    says: str
    rows: tuple[Row, ...]


def drawn(dashboard: Dashboard) -> str:
    """The dashboard as the text of its file."""
    content: dict[str, Any] = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.says,
        "tags": ["holdfast"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": [_alerts()]},
        "links": [_links()],
        "templating": {"list": [_datasource(), _job(), _instance()]},
        "panels": list(_placed(dashboard.rows)),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _placed(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    number = y = 0
    for row in rows:
        number += 1
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        x, y = 0, y + 1
        for panel in row.panels:
            number += 1
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": HEIGHT})
            x += panel.width
        y += HEIGHT


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.alarm is not None:
        steps.append({"color": "red", "value": panel.alarm})
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if not panel.stat:
        line = panel.alarm is not None
        defaults |= {
            "min": 0,
            "custom": {
                "fillOpacity": 8,
                "lineWidth": 1,
                "showPoints": "never",
                "thresholdsStyle": {"mode": "dashed" if line else "off"},
            },
        }
    return {
        "id": number,
        "type": "stat" if panel.stat else "timeseries",
        "title": panel.title,
        "description": panel.says,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _number() if panel.stat else _graph(),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": panel.stat,
                "range": not panel.stat,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _number() -> dict[str, Any]:
    return {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "auto",
    }


def _graph() -> dict[str, Any]:
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
    }


def _job() -> dict[str, Any]:
    """One environment at a time: two would be added up under one name."""
    query = "label_values(agent_task_claim_poll_total, job)"
    return {
        "name": "job",
        "label": "Job",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "jobs"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": False,
        "includeAll": False,
        "current": {},
        "hide": 0,
    }


def _instance() -> dict[str, Any]:
    query = 'label_values(agent_task_claim_poll_total{job="$job"}, instance)'
    return {
        "name": "instance",
        "label": "Instance",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "instances"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "hide": 0,
    }


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing", alertname!="", job="$job"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}}",
    }


def _links() -> dict[str, Any]:
    return {
        "type": "dashboards",
        "title": "Holdfast",
        "tags": ["holdfast"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
    }
