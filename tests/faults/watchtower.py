"""A real Prometheus with the rules loaded, all of whose times are shorter by one factor.

Only times are changed, and by one function: ranges, `for`, and the thresholds that are marked as
waits in the rules. So what takes half an hour in earnest can be watched within a minute.
"""

import json
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from service.ops import RULES
from service.runtime.child_process import dying_with_parent
from tests.faults.service_process import until
from tests.ports import free_port
from tests.programs import program

EVERY_S = 0.5  # scrapes and evaluations
SHORTEST_RANGE_S = 4 * EVERY_S
SHORTEST_WAIT_S = 3.0  # a probe's period, a scrape and an evaluation, and a machine that is busy
START_S = 30.0

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+)([smh])")


def sooner(rules: str, factor: float) -> str:
    """The rule file with every time divided by ``factor``, down to what a scrape can tell."""

    def shorter(found: re.Match[str], least_s: float) -> str:
        seconds = float(found[1]) * _SECONDS[found[2]] / factor
        return f"{max(round(seconds * 1000), round(least_s * 1000))}ms"

    rules = re.sub(
        r"(?<=\[)(\d+)([smh])(?=\])", lambda found: shorter(found, SHORTEST_RANGE_S), rules
    )
    rules = re.sub(
        r"(?<=for: )(\d+)([smh])$", lambda found: shorter(found, EVERY_S), rules, flags=re.MULTILINE
    )
    return re.sub(
        r"> (\d+) # wait",
        lambda found: f"> {max(float(found[1]) / factor, SHORTEST_WAIT_S):g}",
        rules,
    )


class Watchtower:
    """Prometheus on a free port; `watch` instances, wait for alerts, `stop` it at the end.

    The times of the rules are divided by ``factor``.
    """

    def __init__(self, folder: Path, factor: float) -> None:
        self._folder = folder
        self._factor = factor
        self._targets = folder / "targets.json"
        self._jobs: dict[str, str] = {}
        self._naming = threading.Lock()  # the courses of several alerts run at once
        self._client = httpx.Client(timeout=10)
        self._process = self._launch(free_port())
        until(self._is_ready, START_S, f"Prometheus is ready:\n{self._said()}")

    def watch(self, job: str, url: str) -> None:
        """Scrape the instance at ``url`` as ``job``, instead of the one before."""
        with self._naming:
            self._jobs[job] = url.removeprefix("http://")
            groups = [{"targets": [url], "labels": {"job": job}} for job, url in self._jobs.items()]
            fresh = self._targets.with_suffix(".new")
            fresh.write_text(json.dumps(groups))
            fresh.rename(self._targets)
        self._client.post(f"{self.url}/-/reload").raise_for_status()
        until(lambda: self.value(f'up{{job="{job}"}}') == 1, START_S, f"{job} is scraped")

    def state(self, job: str, alert: str) -> str:
        """Inactive, pending or firing."""
        states = {
            each["state"]
            for each in self._alerts()
            if (each["labels"]["alertname"], each["labels"]["job"]) == (alert, job)
        }
        return next((state for state in ("firing", "pending") if state in states), "inactive")

    def firing(self, job: str) -> list[str]:
        """The alerts of a job that fire now."""
        return [
            each["labels"]["alertname"]
            for each in self._alerts()
            if each["labels"].get("job") == job and each["state"] == "firing"
        ]

    def until(self, job: str, alert: str, state: str, within_s: float) -> float:
        """Wait until the alert is in that state; answers how long it took."""
        began = time.monotonic()
        until(
            lambda: self.state(job, alert) == state or time.sleep(EVERY_S / 2),
            within_s,
            f"{alert} of {job} is {state}",
        )
        return time.monotonic() - began

    def value(self, query: str) -> float | None:
        """What a query with one series in its answer says now."""
        answer = self._client.get(f"{self.url}/api/v1/query", params={"query": query})
        result = answer.raise_for_status().json()["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def _alerts(self) -> list[Any]:
        return self._client.get(f"{self.url}/api/v1/alerts").json()["data"]["alerts"]

    def stop(self) -> None:
        self._client.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder / "store", ignore_errors=True)

    def _launch(self, port: int) -> "subprocess.Popen[bytes]":
        self.url = f"http://127.0.0.1:{port}"
        self._targets.write_text("[]")
        (self._folder / "rules.yaml").write_text(sooner(RULES.read_text(), self._factor))
        period = f"{round(EVERY_S * 1000)}ms"
        configuration = {
            "global": {
                "scrape_interval": period,
                "scrape_timeout": period,
                "evaluation_interval": period,
            },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {"job_name": "any", "file_sd_configs": [{"files": [self._targets.name]}]}
            ],
        }
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        with (self._folder / "prometheus.output").open("wb") as output:
            return subprocess.Popen(
                dying_with_parent(
                    program("prometheus"),
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'store'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--web.enable-lifecycle",
                    "--log.level=warn",
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _said(self) -> str:
        return (self._folder / "prometheus.output").read_text()

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._said()
        try:
            return self._client.get(f"{self.url}/-/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False
