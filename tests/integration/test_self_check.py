"""The self-check finds what is wrong in the board or the file, and nothing where nothing is."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from projections.integrity.plan_rows import PlanFile
from service.app import Instance
from service.cli.refold import verify_read_models
from service.daemons.self_check import SelfCheck, is_there
from service.runtime.data_folder import READ_MODELS
from service.runtime.nats_server.credentials import user_url
from streams.jetstream.access import URL_ALONE
from streams.jetstream.drafts import AppenderLimits
from streams.jetstream.forgetting import Purger
from streams.jetstream.log import JetStreamLog
from streams.jetstream.permissions import RETENTION
from streams.log import Appended, Draft, Fact
from streams.plan.events import Cancelled, Heartbeat
from tests.integration.http_world import serving, until_status

World = tuple[Instance, httpx.AsyncClient]
PLANS = 4
OFTEN = 60  # each time one of two plans by chance: both are met


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
        await checked.step(instance.bridge)
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


async def test_a_plan_that_left_the_log_without_being_forgotten_is_reported(world: World) -> None:
    instance, client = world
    await client.post("/v1/plans", json=plan("first", "outside"))
    await settled(client)
    assert await examine(instance) == 0
    log = instance.core.log
    assert isinstance(log, JetStreamLog)
    await log.note_forgotten((await log.state()).head)
    url = user_url(instance.settings.data_dir / "nats", instance.shown_nats_url, RETENTION)
    purger = await Purger.open(url, timeout_s=5, access=URL_ALONE)
    await purger.remove({"open": (await log.state()).head + 1})
    await purger.close()

    assert await examine(instance, OFTEN) > 0

    missing = instance.core.conditions.log_missing
    assert missing == "the log has no facts of plan 'open', which was not forgotten"


@pytest.mark.parametrize(
    ("statement", "field"),
    [
        ("UPDATE tasks SET status = 'RUNNING' WHERE task_id = 'a'", "status"),
        ("UPDATE executions SET owner = 'nobody' WHERE task_ordinal % 2 = 0", "owner"),
        ("DELETE FROM plan_labels WHERE label = 'team=x'", "None"),
        ("UPDATE plans SET subject_sequence = 99", "subject_sequence"),
    ],
)  # fmt: skip
async def test_a_wrong_row_is_counted_and_logged_with_plan_and_field(
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


async def test_a_wrong_board_is_told_from_a_wrong_file(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    instance, client = world
    await settled(client)
    instance.core.board.plans["open"].tasks["c"].retry = 7
    assert await examine(instance) > 0
    said = capsys.readouterr().out
    assert "where=board" in said
    assert "live=7 " in said


async def test_a_plan_is_not_compared_while_a_fact_is_folded_in_part(world: World) -> None:
    instance, client = world
    await settled(client)
    board = instance.core.board
    cancelled = Fact(board.sequence + 1, instance.core.now(), "open", None, Cancelled())
    steps = board.applying(cancelled, instance.core.now())
    next(steps)
    assert board.plans["open"].cancelled
    assert await examine(instance) == 0


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


async def test_an_unfinished_plan_equals_its_board_after_a_restart(tmp_path: Path) -> None:
    """One task has ended, one waits: a restored board knows the execution of the first, too."""
    async with serving(tmp_path) as (_, client):
        await settled(client)
    async with serving(tmp_path) as (instance, _):
        assert instance.core.board.plans["open"].tasks["b"].execution is not None
        assert await examine(instance) == 0


async def test_heartbeats_that_have_left_the_log_are_no_difference(tmp_path: Path) -> None:
    """Cancelled while it ran, and asleep for long: neither task's last fact was a decision."""
    async with serving(tmp_path) as (instance, client):
        for plan_id in ("cancelled", "asleep"):
            tasks = [{"id": "t", "kind": "outside"}]
            await client.post("/v1/plans", json={"id": plan_id, "tasks": tasks})
        await client.post("/v1/claims", json={"owner": "w", "limit": 2, "lease_s": 300})
        short_lived = [await heartbeat(instance, name) for name in ("cancelled", "asleep")]
        await client.post("/v1/plans/cancelled/cancel", json={})
        async with asyncio.timeout(20):
            while [each for each in short_lived if await is_there(instance.core.log, each)]:
                await asyncio.sleep(0.05)
        assert await examine(instance) == 0
        await until_status(client, "/v1/plans/cancelled", "CANCELLED")  # in SQLite, too
        corrupt(instance, "UPDATE tasks SET sequence = 1 WHERE task_id = 't' AND owner IS NULL")
        async with asyncio.timeout(20):  # only what a heartbeat may have set is excused
            while not await examine(instance):
                pass
        settings = instance.settings
    _, found = await verify_read_models(settings, StringIO())
    assert [each.column for each in found.differences] == ["sequence"]
    assert found.rows > 0


async def heartbeat(instance: Instance, plan_id: str) -> int:
    """A heartbeat of the running task that leaves the log after a second; its sequence."""
    expected = instance.core.board.plans[plan_id].tasks["t"].subject_sequence
    said = Heartbeat(owner="w", attempt=1, lease_s=300)
    draft = Draft(plan_id=plan_id, task_id="t", expected=expected, events=(said,))
    limits = AppenderLimits(chatter_ttl_s=1)
    source = await JetStreamLog.connect(instance.nats_url, limits=limits)
    try:
        appended = await source.append(draft)
    finally:
        await source.close()
    assert isinstance(appended, Appended)
    await instance.core.folded(appended.sequence)
    return appended.sequence
