"""An instance forgets plans that ended, after it archived them, with a user that may only purge."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from service.archive.days import files_of, read, verify
from tests.faults.service_process import ServiceProcess, run_holdfast
from tests.waiting import until

PLANS = 30
AT_ONCE = "0.000001"  # days


def submit(client: httpx.Client, plan_id: str, kind: str = "echo") -> httpx.Response:
    tasks = [{"id": "a", "kind": kind}, {"id": "b", "kind": kind, "depends_on": ["a"]}]
    return client.post("/v1/plans", json={"id": plan_id, "tasks": tasks})


def has_ended(client: httpx.Client, plan_id: str) -> bool:
    found = client.get(f"/v1/plans/{plan_id}")
    return found.status_code == 404 or found.json()["finished_at"] is not None


def left_to_remove(service: ServiceProcess) -> int:
    with closing(sqlite3.connect(service.data_dir / "readmodels.sqlite")) as models:
        (left,) = models.execute("SELECT count(*) FROM forgotten WHERE NOT removed").fetchone()
    return left


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("retention")
    running = ServiceProcess(
        folder / "data",
        retention__finished_days=AT_ONCE,
        retention__archive_dir=str(folder / "archive"),
    ).start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def client(service: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=20) as opened:
        yield opened


@pytest.mark.timeout(120)
def test_plans_that_ended_are_forgotten_everywhere(
    service: ServiceProcess, client: httpx.Client
) -> None:
    for number in range(PLANS):
        assert submit(client, f"p{number}").status_code == 201
    assert submit(client, "open", kind="outside").status_code == 201
    gone = lambda: client.get(f"/v1/plans/p{PLANS - 1}").status_code == 404  # noqa: E731
    until(gone, within_s=60, what="the last plan is forgotten")
    until(lambda: counted(client) == PLANS, what="all plans are forgotten")

    assert {each["plan_id"] for each in client.get("/v1/plans").json()["items"]} == {"open"}
    tasks = client.get("/v1/tasks").json()["items"]
    assert {each["plan_id"] for each in tasks} == {"open"}
    assert client.get("/v1/plans/p1/events").status_code == 404
    again = submit(client, "p1")
    assert again.status_code == 409
    assert "can be used again from" in again.json()["detail"]
    until(lambda: left_to_remove(service) == 0, what="the facts of all of them are removed")
    code, said = run_holdfast("export", "--plan", "p1", data_dir=str(service.data_dir))
    assert (code, said.count("\n"), "plan.forgotten" in said) == (0, 1, True), said
    assert '"forget"' in client.get("/v1/audit?event=operator_action").text


def counted(client: httpx.Client) -> float:
    text = client.get("/metrics").text
    (line,) = (x for x in text.splitlines() if x.startswith("agent_retention_forgotten_total "))
    return float(line.split()[1])


def archived(service: ServiceProcess) -> dict[str, list[dict[str, Any]]]:
    found, facts = dict[str, list[dict[str, Any]]](), list[dict[str, Any]]()
    for path in files_of(service.data_dir.parent / "archive"):
        for line in read(path):
            if isinstance(line, bytes):
                facts.append(json.loads(line))
            else:
                found[line.archived], facts = facts, []
    return found


def test_each_plan_is_archived_with_all_its_facts(service: ServiceProcess) -> None:
    found = archived(service)
    assert set(found) == {f"p{number}" for number in range(PLANS)}
    for facts in found.values():
        events = [fact["event"] for fact in facts]
        assert (events[0], events[-1]) == ("plan.submitted", "plan.finished")
        assert events.count("task.completed") == 2
    assert verify(service.data_dir.parent / "archive") == PLANS


@pytest.mark.timeout(120)
def test_a_rebuild_equals_live_and_nothing_is_reported_missing(
    service: ServiceProcess, client: httpx.Client
) -> None:
    code, said = run_holdfast("rebuild", "--verify", data_dir=str(service.data_dir), nats__port="0")
    assert (code, "equal: " in said) == (0, True), said
    codes = {each["code"] for each in client.get("/v1/ops/doctor").json()["findings"]}
    assert not codes & {"LogFactsMissing", "RetentionBehind", "ProjectionMismatch"}
    assert "log_facts_missing" not in service.output


def test_a_cursor_before_what_was_forgotten_gets_a_gap_and_the_rest(client: httpx.Client) -> None:
    blocks, gap = list[str](), dict[str, Any]()
    with client.stream("GET", "/v1/events?after=2") as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                blocks.append(line.removeprefix("event: "))
            if line.startswith("data: ") and blocks[-1] == "gap":
                gap = json.loads(line.removeprefix("data: "))
            if blocks and blocks[-1] == "caught_up":
                break
    assert blocks.count("gap") == 1
    assert (gap["reason"], gap["requested"]) == ("forgotten", 2)
    assert blocks.count("plan.forgotten") == PLANS


@pytest.mark.timeout(60)
def test_after_a_restart_the_same_plans_are_there(service: ServiceProcess) -> None:
    service.stop()
    service.start()
    assert "rebuilding_read_models" not in service.output
    with httpx.Client(base_url=service.url, timeout=20) as client:
        plans = client.get("/v1/plans").json()["items"]
        assert {each["plan_id"] for each in plans} == {"open"}
