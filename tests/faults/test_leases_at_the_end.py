"""Leases of a process that ends: killed, its successor frees them; told to stop, it leaves none."""

import random
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import PrivateServer
from tests.faults.service_process import ServiceProcess
from tests.waiting import until

RACES, MANY_RACES = 4, 200


@pytest.fixture
def races(*, long_faults: bool) -> int:
    return MANY_RACES if long_faults else RACES


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    service = ServiceProcess(tmp_path / "data", executor__drain_s="1")
    service.start()
    yield service
    service.kill()


def submit(service: ServiceProcess, plan_id: str, seconds: float) -> None:
    task = {"id": "t", "kind": "sleep", "input": {"seconds": seconds}, "lease_s": 60}
    plan = {"id": plan_id, "tasks": [task]}
    httpx.post(f"{service.url}/v1/plans", json=plan, timeout=20).raise_for_status()


def task_of(service: ServiceProcess, plan_id: str) -> dict[str, Any]:
    answer = httpx.get(f"{service.url}/v1/plans/{plan_id}/tasks/t", timeout=20)
    return answer.raise_for_status().json()


def claimed_at(service: ServiceProcess, plan_id: str) -> datetime:
    """When its newest attempt was claimed, by the log's clock."""
    executions = task_of(service, plan_id)["executions"]
    return max(datetime.fromisoformat(each["claimed_at"]) for each in executions)


def test_what_a_killed_process_held_is_free_as_soon_as_the_next_one_serves(
    service: ServiceProcess,
) -> None:
    submit(service, "p", 3)
    until(lambda: task_of(service, "p")["status"] == "RUNNING", 20, "it runs")
    service.kill()
    service.start()
    # No clock: a task that comes once the next process serves is not claimed before the freed one.
    submit(service, "later", 0)
    for plan_id in ("later", "p"):
        until(lambda: task_of(service, plan_id)["status"] == "COMPLETED", 30, "it ends")  # noqa: B023
    assert claimed_at(service, "p") <= claimed_at(service, "later")
    task = task_of(service, "p")
    assert task["lost"] == 0
    assert [each["status"] for each in task["executions"]] == ["released", "completed"]


@pytest.mark.timeout(3_000)
def test_a_stop_that_races_a_new_task_leaves_no_claim_behind(
    service: ServiceProcess, races: int
) -> None:
    dice = random.Random(11)
    for race in range(races):
        submit(service, f"p{race}", 0.05)
        time.sleep(dice.uniform(0, 0.05))  # the race itself: no condition says when to stop
        assert service.terminate(30) == 0
        service.start()
        until(lambda: task_of(service, f"p{race}")["status"] == "COMPLETED", 20, "it ends")  # noqa: B023
        task = task_of(service, f"p{race}")
        ends = [each["status"] for each in task["executions"]]
        assert task["lost"] == 0
        assert ends == ["released"] * (len(ends) - 1) + ["completed"]


@pytest.mark.timeout(3_000)
def test_of_two_instances_one_that_stops_leaves_no_claim_behind(
    tmp_path: Path, private_nats: PrivateServer, races: int
) -> None:
    dice = random.Random(12)
    stays, goes = (
        ServiceProcess(tmp_path / name, nats_url=private_nats.url, executor__drain_s="1")
        for name in ("stays", "goes")
    )
    try:
        stays.start()
        for race in range(races):
            goes.start()
            submit(goes, f"p{race}", 0.05)
            time.sleep(dice.uniform(0, 0.05))  # the race itself: no condition says when to stop
            assert goes.terminate(30) == 0
            until(lambda: task_of(stays, f"p{race}")["status"] == "COMPLETED", 20, "it ends")  # noqa: B023
            task = task_of(stays, f"p{race}")
            ends = [each["status"] for each in task["executions"]]
            assert task["lost"] == 0
            assert ends == ["released"] * (len(ends) - 1) + ["completed"]
    finally:
        goes.kill()
        stays.kill()
