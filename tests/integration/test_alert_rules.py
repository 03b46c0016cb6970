"""Every alert fires on its trouble and keeps still in the healthy case that looks most like it.

The rules are run by promtool; that they fire on real faults is for tests/faults/test_prometheus.py.
"""

import subprocess
from pathlib import Path

import yaml

from service.signals.metrics.catalogue import CATALOGUE
from tests.integration.alert_story import HERE, RULES, Fires, Series, Story, alert_rules, told
from tests.integration.alerts_of_parts import LAST, OF_PARTS
from tests.integration.alerts_of_work import OF_WORK
from tests.programs import program
from tests.unit.test_catalogue import every_combination
from tests.unit.test_ops import EVERYWHERE

CASES = [*OF_WORK, *OF_PARTS]


def test_an_alert_fires_on_its_trouble_and_not_on_what_looks_like_it(tmp_path: Path) -> None:
    told(
        tmp_path,
        (
            Story(
                name=f"{case.alert}: {case.why}",
                series=case.series,
                after=(case.after,),
                expected={case.alert: [case.fires] if case.fires else []},
            )
            for case in CASES
        ),
    )


def test_every_alert_has_a_story_of_each_kind() -> None:
    alerts = set(alert_rules())
    assert {case.alert for case in CASES if case.fires} == alerts
    assert {case.alert for case in CASES if not case.fires} == alerts


def test_the_rules_are_valid() -> None:
    check = [program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(RULES)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_dashboards_and_the_runbook_ask_can_be_asked(tmp_path: Path) -> None:
    """Prometheus's own parser reads every expression."""
    rules = [
        {"record": f"asked:{number}", "expr": asked.replace("$__rate_interval", "5m")}
        for number, (_, asked) in enumerate(EVERYWHERE)
    ]
    path = tmp_path / "asked.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    check = [program("promtool"), "check", "rules", str(path)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(EVERYWHERE)} rules found" in done.stdout


def test_the_example_for_prometheus_is_valid() -> None:
    check = [program("promtool"), "check", "config", str(RULES.with_name("prometheus.yml"))]
    done = subprocess.run(check, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_idle_healthy_system_fires_nothing(tmp_path: Path) -> None:
    told(tmp_path, [still("idle", idle(), ("90m",), step="1m")])


def test_a_restart_fires_nothing(tmp_path: Path) -> None:
    """An instance that has counted much is gone for 45 seconds and counts from 0 again."""
    restarted: Series = {}
    for name, values in idle().items():
        if name == "up":
            restarted[name] = "1x40 0x3 1x37"
        elif name.startswith(LAST):
            restarted[name] = "0+15x40 _x3 645+15x37"
        elif name.partition("{")[0].endswith(("_total", "_bucket", "_count")):
            restarted[name] = "5000x40 _x3 0x37"
        else:
            restarted[name] = f"{values.split('x')[0]}x40 _x3 0x37"
    moments = ("9m", "10m30s", "11m", "12m", "14m", "20m")
    told(tmp_path, [still("later", restarted, moments)])


def still(name: str, series: Series, after: tuple[str, ...], step: str = "15s") -> Story:
    """No alert at all."""
    nothing: dict[str, list[Fires]] = {alert: [] for alert in alert_rules()}
    return Story(name=name, series=series, after=after, expected=nothing, step=step)


def idle() -> Series:
    """All that one instance shows when nothing happens; daemons succeed."""
    series: Series = {"up": "1x100"}
    for metric in CATALOGUE.values():
        for labels in every_combination(metric):
            if "surprise" in labels.values():
                continue
            text = ",".join(f'{key}="{value}"' for key, value in (HERE | labels).items())
            if metric.kind == "histogram":
                for bound in (*metric.buckets, "+Inf"):
                    series[f'{metric.prometheus_name}_bucket{{{text},le="{bound}"}}'] = "0x100"
                series[f"{metric.prometheus_name}_count{{{text}}}"] = "0x100"
            else:
                moves = metric.name == "agent.daemon.last_success_timestamp"
                series[f"{metric.prometheus_name}{{{text}}}"] = "0+60x100" if moves else "0x100"
    return series
