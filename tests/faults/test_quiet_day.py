"""A day without a fault, in minutes: no alert fires, no finding appears, no self-check differs.

Plans of all shapes are worked off by the executor and by workers outside that sleep over long
tasks with heartbeats; the service is restarted under them with unfinished plans; heartbeats and
progress expire from the log within seconds. Whatever is reported meanwhile is a false alarm.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.busy import HELD
from tests.faults.plan_shapes import shapes
from tests.faults.report import Report
from tests.faults.service_process import ServiceProcess, run_holdfast, until
from tests.faults.short_chatter import CHATTER_TTL_S
from tests.faults.sleeper import Sleeper
from tests.faults.watchtower import Watchtower
from tests.ports import free_port
from tests.scrape import Snapshot

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3_000)]

SHORT_S, LONG_S = 30, 1_800
FACTOR = 20.0  # by which the times of the rules are divided
RESTARTS = 3
WORKERS = 12  # enough that no task waits for 3 s, which the shortened rules call starved
SETTLE_S = 6.0  # after a restart: rules look back over ranges that are shortened as well
# True beside tests that keep the disk busy: the short form runs with them, the long one alone.
BESIDE = {"LogSlow", "DatabaseUnavailable"}
# True on one that leaves a process without time for seconds: its rules look at waits that are
# divided by it, and at what a handler or a renewal did within seconds.
STALLED, STALL_S = {"LeaseMarginLow", "HandlersOverrun"}, 1.0
WORDS = ("complete", "complete", "complete", "fail", "release")

Json = dict[str, Any]


class Fleet:
    """Workers outside that do everything right, and an operator."""

    def __init__(self, service: ServiceProcess, seed: int) -> None:
        self._service = service
        self._dice = random.Random(seed)
        self._over = threading.Event()
        self.done = 0
        self.trouble: list[str] = []
        self._threads = [threading.Thread(target=self._guarded, args=(self._submit,))]
        self._threads += [
            threading.Thread(target=self._guarded, args=(self._work, f"w{n}"))
            for n in range(WORKERS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _guarded(self, run: Any, *arguments: object) -> None:
        try:
            with httpx.Client(timeout=40) as client:
                run(client, *arguments)
        except Exception as error:  # noqa: BLE001 - told by the test
            self.trouble.append(repr(error))

    def _say(self, client: httpx.Client, path: str, body: Json) -> httpx.Response:
        """Repeat a request until it has an answer, as a right client does."""
        while True:
            with suppress(httpx.TransportError):
                answer = client.post(f"{self._service.url}{path}", json=body)
                if not answer.is_server_error:
                    return answer
            time.sleep(0.05)

    def _submit(self, client: httpx.Client) -> None:
        plans = shapes(self._dice)
        while not self._over.wait(0.5):
            plan = next(plans)
            self._say(client, "/v1/plans", plan).raise_for_status()
            path = f"/v1/plans/{plan['id']}"
            if plan["id"].endswith("-cancelled"):
                self._over.wait(0.5)
                self._say(client, f"{path}/cancel", {"reason": "no longer wanted"})
            elif self._dice.random() < 0.3:
                self._say(client, f"{path}/pause", {})
                self._say(client, f"{path}/resume", {})

    def _work(self, client: httpx.Client, owner: str) -> None:
        while not self._over.is_set():
            wish = {"owner": owner, "kinds": ["outside"], "wait_s": 1}
            for claim in self._say(client, "/v1/claims", wish).json()["claims"]:
                self._do(client, owner, claim)

    def _do(self, client: httpx.Client, owner: str, claim: Json) -> None:
        path = f"/v1/plans/{claim['plan_id']}/tasks/{claim['task_id']}"
        held = {"owner": owner, "attempt": claim["attempt"]}
        self._say(client, f"{path}/start", held)
        for _ in range(self._dice.choice((0, 0, 1, 8))):
            time.sleep(1.0)
            beat = self._say(client, f"{path}/heartbeat", {**held, "progress": {"at": time.time()}})
            if not beat.is_success:
                assert "-cancelled" in claim["plan_id"], beat.text
                return
        word = self._dice.choice(WORDS)
        said: Json = {"fail": {"error_type": "x", "retry_in_s": 0.1}}.get(word, {})
        if word == "complete" and claim["type"] == "critic":
            said = {"verdict": {"pass": self._dice.random() < 0.7, "feedback": "again"}}
        answer = self._say(client, f"{path}/{word}", held | said)
        assert answer.is_success or "-cancelled" in claim["plan_id"], answer.text
        self.done += 1


@contextmanager
def working(service: ServiceProcess) -> Iterator[Fleet]:
    fleet = Fleet(service, seed=3)
    fleet.start()
    try:
        yield fleet
    finally:
        fleet.stop()


def _alarms(tower: Watchtower, service: ServiceProcess) -> set[str]:
    return {*tower.firing("quiet"), *findings(service)}


def findings(service: ServiceProcess) -> list[str]:
    report = httpx.get(f"{service.url}/v1/ops/doctor", timeout=15).raise_for_status().json()
    return [f"{each['code']}: {each['summary']}" for each in report["findings"]]


def test_a_day_without_a_fault_raises_no_alarm(
    tmp_path: Path, report: Report, *, long_faults: bool
) -> None:
    day_s = LONG_S if long_faults else SHORT_S
    service = ServiceProcess(
        tmp_path / "data",
        module="tests.faults.short_chatter",
        http__port=str(free_port()),
        executor__instance_id="quiet",
    )
    tower = Watchtower(tmp_path, FACTOR)
    alarms: set[str] = set()
    looked = 0
    try:
        service.start()
        tower.watch("quiet", service.url)
        with Sleeper() as sleeper, working(service) as fleet:
            for _ in range(RESTARTS):
                calm_from, until_s = (
                    time.monotonic() + SETTLE_S,
                    time.monotonic() + day_s / RESTARTS,
                )
                while time.monotonic() < until_s:
                    time.sleep(0.5)
                    assert fleet.trouble == []
                    if time.monotonic() > calm_from:
                        looked += 1
                        alarms |= _alarms(tower, service)
                differences = Snapshot(httpx.get(f"{service.url}/metrics").text).sum(
                    "agent_projection_mismatch_total"
                )
                assert differences == 0
                assert service.terminate() == 0
                service.start()
        time.sleep(CHATTER_TTL_S + 1)  # the last heartbeats have left the log
        assert fleet.trouble == []
        until(
            lambda: run_holdfast("rebuild", "--verify", data_dir=str(service.data_dir))[0] == 0,
            60,
            "the read models equal the log",
        )
    finally:
        service.stop()
        tower.stop()
    report.add(
        "a quiet day",
        f"{day_s} s",
        looks=looked,
        tasks=fleet.done,
        restarts=RESTARTS,
        sleeper_worst_s=sleeper.worst_s,
        alarms=sorted({each.partition(":")[0] for each in alarms}),
    )
    assert fleet.done > day_s / 3
    excused = HELD | (STALLED if sleeper.worst_s > STALL_S else set())
    excused |= set() if long_faults else BESIDE
    assert {each for each in alarms if each.partition(":")[0] not in excused} == set()
