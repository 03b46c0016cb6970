"""The bytes of unfinished plans are bounded: over the bound a new plan is refused, with the number.

The count follows from the log, so a restart restores it and instances agree on it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import READ_MODELS, Instance
from tests.conftest import PrivateServer
from tests.integration.http_world import serving
from tests.waiting import eventually

MOST = 1_048_576
LARGE = 300_000  # bytes of an input: three such plans fit, a fourth does not


def plan(plan_id: str, size: int = LARGE) -> dict[str, Any]:
    task = {"id": "t", "kind": "no-worker", "input": {"text": "x" * size}}
    return {"id": plan_id, "tasks": [task]}


def bounded(folder: Path, **flags: object) -> Any:
    return serving(folder, memory__unfinished_bytes=MOST, **flags)


async def submitted(client: httpx.AsyncClient, *plan_ids: str) -> list[int]:
    answers = [client.post("/v1/plans", json=plan(plan_id)) for plan_id in plan_ids]
    return [answer.status_code for answer in await asyncio.gather(*answers)]


def unfinished(instance: Instance) -> int:
    return instance.core.board.unfinished.total


async def test_a_plan_beyond_the_bound_is_refused_until_others_have_ended(tmp_path: Path) -> None:
    async with bounded(tmp_path) as (instance, client):
        assert await submitted(client, "a", "b", "c") == [201, 201, 201]
        held = unfinished(instance)
        assert 3 * LARGE < held < MOST
        refused = await client.post("/v1/plans", json=plan("d"))
        assert (refused.status_code, refused.json()["code"]) == (429, "too_much_unfinished")
        assert f"at most {MOST:,}" in refused.json()["detail"]
        assert f"{held:,} bytes" in refused.json()["detail"]
        assert "memory.unfinished_bytes" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) >= 1
        assert await submitted(client, "a") == [200], "what is in the log is not refused"
        assert (await client.post("/v1/plans/b/cancel", json={})).status_code == 200
        await eventually(lambda: unfinished(instance) < held - LARGE)
        assert await submitted(client, "d") == [201]
        assert "unfinished_bytes" in (await client.get("/v1/ops/doctor")).text


async def test_many_submissions_at_a_time_do_not_pass_the_bound_together(tmp_path: Path) -> None:
    async with bounded(tmp_path) as (instance, client):
        answers = await submitted(client, *(f"p{n}" for n in range(12)))
        assert sorted(answers) == [201, 201, 201, *[429] * 9]
        assert unfinished(instance) <= MOST


@pytest.mark.parametrize("rebuilt", [False, True], ids=["restored", "rebuilt"])
async def test_a_restart_counts_the_same(tmp_path: Path, *, rebuilt: bool) -> None:
    async with bounded(tmp_path) as (instance, client):
        assert await submitted(client, "a", "b", "c") == [201, 201, 201]
        assert (await client.post("/v1/plans/a/cancel", json={})).status_code == 200
        await eventually(lambda: len(instance.core.board.plans) == 2)
        before = unfinished(instance)
    if rebuilt:
        (tmp_path / "data" / READ_MODELS).unlink()
    async with bounded(tmp_path) as (instance, client):
        assert unfinished(instance) == before
        assert await submitted(client, "d") == [201]
        assert await submitted(client, "e") == [429]


@asynccontextmanager
async def three(folder: Path, url: str) -> AsyncIterator[list[tuple[Instance, httpx.AsyncClient]]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(bounded(folder / name, nats__url=url))
            for name in ("a", "b", "c")
        ]


async def test_instances_of_one_log_agree(tmp_path: Path, private_nats: PrivateServer) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    async with three(tmp_path, private_nats.url) as instances:
        for (_, client), plan_id in zip(instances, "xyz", strict=True):
            assert await submitted(client, plan_id) == [201]
        await eventually(lambda: len({unfinished(each) for each, _ in instances}) == 1)
        for _, client in instances:
            assert await submitted(client, "more") == [429]
