"""Tells promtool a story of metrics and asks which alerts it makes fire."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from service.ops import RULES
from tests.programs import program

JOB = {"job": "holdfast"}
HERE = JOB | {"instance": "a"}

Series = dict[str, str]
"""Values by series in promtool's notation; job and instance are added where they are missing."""


class Fires(msgspec.Struct, frozen=True):
    """An alert that is expected: the labels it bears beside severity and job, and its summary."""

    summary: str
    labels: dict[str, str] = {}


def alert_rules() -> dict[str, dict[str, Any]]:
    """Every alert rule by its name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """Series over time, and what of the named alerts fires ``after`` each of these times."""

    name: str
    series: Series
    after: tuple[str, ...]
    expected: dict[str, list[Fires]]
    step: str = "15s"


def told(folder: Path, stories: Iterable[Story]) -> None:
    """All stories come true, told to promtool in one go."""
    rules = alert_rules()
    told = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "15s",
        # As they stand in the file; else promtool takes them in any order, and what is recorded
        # may be an evaluation old.
        "group_eval_order": [
            group["name"] for group in yaml.safe_load(RULES.read_text())["groups"]
        ],
        "tests": [_told(story, rules) for story in stories],
    }
    path = folder / "stories.yaml"
    path.write_text(yaml.safe_dump(told))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _told(story: Story, rules: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": story.name,
        "interval": story.step,
        "input_series": [
            {"series": placed(name), "values": values} for name, values in story.series.items()
        ],
        "alert_rule_test": [
            {
                "eval_time": after,
                "alertname": name,
                "exp_alerts": [_expectation(rules[name], each) for each in fires],
            }
            for after in story.after
            for name, fires in story.expected.items()
        ],
    }


def placed(series: str) -> str:
    """The series with job and instance: of instance ``a`` where it names none."""
    name, _, labels = series.rstrip("}").partition("{")
    places = [f'{key}="{value}"' for key, value in HERE.items() if f"{key}=" not in labels]
    return f"{name}{{{','.join([*filter(None, [labels]), *places])}}}"


def _expectation(rule: dict[str, Any], fires: Fires) -> dict[str, Any]:
    labels = JOB | rule["labels"] | fires.labels
    description = rule["annotations"]["description"]
    for label, value in labels.items():
        description = description.replace(f"{{{{ $labels.{label} }}}}", value)
    annotations = rule["annotations"] | {"description": description, "summary": fires.summary}
    return {"exp_labels": labels, "exp_annotations": annotations}
