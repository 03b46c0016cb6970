"""A crash between any two stages of forgetting plans loses nothing, and is finished later."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from service.archive.days import verify
from tests.faults.dying_retention import STAGES
from tests.faults.service_process import ServiceProcess, run_holdfast
from tests.waiting import until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

MODULE = "tests.faults.dying_retention"
AT_ONCE = "0.000001"  # days
BEFORE, BEHIND = 10, 5  # plans that are forgotten before and behind one that is kept


def submit(client: httpx.Client, plan_id: str, kind: str = "echo") -> None:
    plan = {"id": plan_id, "tasks": [{"id": "a", "kind": kind}, {"id": "b", "kind": kind}]}
    assert client.post("/v1/plans", json=plan).status_code == 201


def has_ended(client: httpx.Client, plan_id: str) -> bool:
    return client.get(f"/v1/plans/{plan_id}").json()["finished_at"] is not None


def plans_of(client: httpx.Client) -> set[str]:
    return {each["plan_id"] for each in client.get("/v1/plans").json()["items"]}


@contextmanager
def running(service: ServiceProcess) -> Iterator[tuple[ServiceProcess, httpx.Client]]:
    try:
        service.start()
        with httpx.Client(base_url=service.url, timeout=20) as client:
            yield service, client
    finally:
        service.stop()


def left_to_remove(service: ServiceProcess) -> int:
    with closing(sqlite3.connect(service.data_dir / "readmodels.sqlite")) as models:
        (left,) = models.execute("SELECT count(*) FROM forgotten WHERE NOT removed").fetchone()
    return left


def equals_a_rebuild(service: ServiceProcess) -> None:
    code, said = run_holdfast("rebuild", "--verify", data_dir=str(service.data_dir), nats__port="0")
    assert (code, "equal: " in said) == (0, True), said


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_crash_left_half_done_is_finished_and_nothing_is_lost(
    tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, archive = tmp_path / "data", tmp_path / "archive"
    ended = [f"p{number}" for number in range(BEFORE + BEHIND)]
    with running(ServiceProcess(folder)) as (_, client):
        for number, name in enumerate(ended):
            if number == BEFORE:
                submit(client, "kept", kind="outside")
            submit(client, name)  # one after the other: the log's beginning does not end in many
            until(lambda name=name: has_ended(client, name), within_s=30, what=f"{name} ends")
    forgetting = {"retention__finished_days": AT_ONCE, "retention__archive_dir": str(archive)}

    monkeypatch.setenv("DIE_AFTER", stage)
    dying = ServiceProcess(folder, module=MODULE, **forgetting)
    dying.launch()
    assert dying.wait(60) == -9, dying.output[-2000:]
    equals_a_rebuild(dying)

    monkeypatch.delenv("DIE_AFTER")
    with running(ServiceProcess(folder, module=MODULE, **forgetting)) as (service, client):
        until(lambda: plans_of(client) == {"kept"}, within_s=60, what="all others are forgotten")
        until(lambda: left_to_remove(service) == 0, within_s=60, what="all that is left is removed")
        codes = {each["code"] for each in client.get("/v1/ops/doctor").json()["findings"]}
        kept = client.get("/v1/plans/kept").json()
        assert not codes & {"LogFactsMissing", "RetentionBehind", "ProjectionMismatch"}
        assert kept["counts"]["READY"] == 2
        equals_a_rebuild(service)
        assert "log_facts_missing" not in service.output
    assert verify(archive) >= len(
        ended
    )  # one that was archived before the crash stands there twice
