"""The self-check finds what is wrong in the board or the file, and nothing where nothing is."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from projections.integrity.plan_rows import PlanFile
from service.app import Instance
from service.daemons.self_check import SelfCheck
from service.runtime.data_folder import READ_MODELS
from tests.integration.http_world import serving, until_status

World = tuple[Instance, httpx.AsyncClient]
PLANS = 4


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path) as world:
        yield world


def plan(plan_id: str, kind: str) -> dict[str, Any]:
    return {
        "id": plan_id,
        "labels": {"team": "x"},
        "tasks": [
            {"id": "a", "kind": kind},
            {"id": "b", "kind": kind, "depends_on": ["a"]},
            {"id": "c", "kind": "outside", "on_failure": "continue"},
        ],
    }


def path_of(instance: Instance) -> Path:
    return instance.settings.data_dir / READ_MODELS


async def examine(instance: Instance, times: int = 2 * PLANS) -> float:
    """Check so often that every plan has had its turn; how many differences were counted."""
    metrics, checked = instance.core.metrics, SelfCheck(PlanFile(path_of(instance)))
    before = _mismatches(metrics.shown("agent.projection.mismatch.total"))
    for _ in range(times):
        await checked.step(instance.door)
    return _mismatches(metrics.shown("agent.projection.mismatch.total")) - before


def _mismatches(shown: Any) -> float:
    return shown.values[0].value


async def settled(client: httpx.AsyncClient) -> None:
    """One finished plan and one that waits, both in SQLite."""
    await client.post("/v1/plans", json=plan("open", "echo"))
    await until_status(client, "/v1/plans/open/tasks/b", "COMPLETED")


def corrupt(instance: Instance, statement: str) -> None:
    with sqlite3.connect(path_of(instance), timeout=5) as connection:
        assert connection.execute(statement).rowcount == 1
    connection.close()


async def test_where_nothing_is_wrong_nothing_is_found(world: World) -> None:
    instance, client = world
    await settled(client)
    assert await examine(instance) == 0


@pytest.mark.parametrize(
    ("statement", "field"),
    [
        ("UPDATE tasks SET status = 'RUNNING' WHERE task_id = 'a'", "status"),
        ("UPDATE executions SET owner = 'nobody' WHERE task_ordinal % 2 = 0", "owner"),
        ("DELETE FROM plan_labels WHERE label = 'team=x'", "None"),
        ("UPDATE plans SET subject_sequence = 99", "subject_sequence"),
    ],
)  # fmt: skip
async def test_a_wrong_row_is_counted_and_told_by_plan_and_field(
    world: World, statement: str, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    instance, client = world
    await settled(client)
    corrupt(instance, statement)
    assert await examine(instance) > 0
    said = capsys.readouterr().out
    assert "projection_mismatch" in said
    assert "where=database" in said
    assert "plan_id=open" in said
    assert f"field={field}" in said


async def test_a_board_that_has_gone_astray_is_told_from_the_file(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    instance, client = world
    await settled(client)
    instance.core.board.plans["open"].tasks["c"].retry = 7
    assert await examine(instance) > 0
    said = capsys.readouterr().out
    assert "where=board" in said
    assert "live=7 " in said


async def test_plans_that_change_all_the_time_are_never_called_wrong(world: World) -> None:
    """The check runs as fast as it can beside work; both places are compared, none differs."""
    instance, client = world
    names = [f"busy-{n}" for n in range(PLANS)]
    for name in names:
        tasks = [{"id": f"t{n}", "kind": "outside"} for n in range(24)]
        await client.post("/v1/plans", json={"id": name, "tasks": tasks})

    async def work(owner: str) -> None:
        while True:
            answer = await client.post("/v1/claims", json={"owner": owner, "limit": 3})
            for claim in answer.json()["claims"]:
                path = f"/v1/plans/{claim['plan_id']}/tasks/{claim['task_id']}"
                said = {"owner": owner, "attempt": claim["attempt"]}
                await client.post(f"{path}/start", json=said)
                await client.post(f"{path}/heartbeat", json=said)
                await client.post(f"{path}/complete", json=said | {"output": 1})
            if not answer.json()["claims"]:
                return

    working = asyncio.gather(*(work(f"w{n}") for n in range(3)))
    found = 0.0
    while not working.done():
        found += await examine(instance, 4)
    await working
    assert found == 0
    assert await examine(instance) == 0
