"""`holdfast export` writes one plan's facts as lines of JSON, with and without an instance."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.service_process import ServiceProcess, run_holdfast
from tests.waiting import until


def export(data_dir: Path, *flags: str) -> tuple[int, str]:
    return run_holdfast("export", *flags, data_dir=str(data_dir), nats__port="0")


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    running = ServiceProcess(tmp_path_factory.mktemp("export") / "data").start()
    try:
        with httpx.Client(base_url=running.url, timeout=20) as client:
            for plan_id in ("mine", "other"):
                tasks = [{"id": "a", "kind": "echo", "input": {"say": "line\nbreak"}}]
                plan = {"id": plan_id, "tasks": tasks, "context": {"by": "a test"}}
                assert client.post("/v1/plans", json=plan).status_code == 201
            ended = lambda: client.get("/v1/plans/mine").json()["status"] == "COMPLETED"  # noqa: E731
            until(ended, within_s=30)
        yield running
    finally:
        running.stop()


def test_an_export_beside_an_instance_and_without_one_is_the_same(
    service: ServiceProcess, tmp_path: Path
) -> None:
    code, said = export(service.data_dir, "--plan", "mine")
    assert code == 0, said
    lines = lines_of(said)
    events = [line["event"] for line in lines]
    assert (events[0], events[-1]) == ("plan.submitted", "plan.finished")
    assert {"task.claimed", "task.completed"} <= {*events}
    assert {line["subject"] for line in lines} == {"plans.mine", "plans.mine.a"}
    sequences = [line["sequence"] for line in lines]
    assert sequences == sorted(set(sequences))
    first = lines[0]
    assert (first["schema"], first["payload"]["event"]) == (1, "submitted")
    assert first["payload"]["tasks"][0]["input"] == {"say": "line\nbreak"}
    assert first["headers"]["Nats-Msg-Id"]
    assert first["time"].endswith("Z")

    service.stop()
    to = tmp_path / "mine.ndjson"
    code, said = export(service.data_dir, "--plan", "mine", "--to", str(to))

    assert (code, f"{to}: {len(lines)} facts" in said) == (0, True), said
    assert lines_of(to.read_text(encoding="utf-8")) == lines
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    before = to.read_bytes()
    code, said = export(service.data_dir, "--plan", "mine", "--to", str(to))
    assert code == 1, said
    assert to.read_bytes() == before


def test_an_unknown_plan_is_named_and_leaves_no_file(
    service: ServiceProcess, tmp_path: Path
) -> None:
    to = tmp_path / "none.ndjson"

    code, said = export(service.data_dir, "--plan", "none", "--to", str(to))

    assert (code, "the log has no plan 'none'" in said) == (1, True), said
    assert not to.exists()
    assert export(service.data_dir, "--plan", "a plan")[0] == 2
