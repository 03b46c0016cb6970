"""Owners that leave, hang up or freeze: what they hold is free for others, at no cost."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from service.app import Instance
from service.core.answers import ClaimRequest
from tests.conftest import PrivateServer
from tests.integration.http_world import serving

Json = dict[str, Any]


async def submit(
    client: httpx.AsyncClient, plan_id: str = "p", tasks: int = 1, **task: Any
) -> None:
    plan = {"id": plan_id, "tasks": [{"id": f"t{n}", "kind": "k", **task} for n in range(tasks)]}
    assert (await client.post("/v1/plans", json=plan)).status_code == 201


async def claim(client: httpx.AsyncClient, owner: str, **more: Any) -> list[Json]:
    body = {"owner": owner, "kinds": ["k"], **more}
    return (await client.post("/v1/claims", json=body)).raise_for_status().json()["claims"]


async def view(client: httpx.AsyncClient, task_id: str = "t0") -> Json:
    return (await client.get(f"/v1/plans/p/tasks/{task_id}")).json()


async def waiting(instance: Instance, **claims: int) -> None:
    """Until each owner has so many claims waiting; an underscore stands for a slash."""
    waiters = instance.core.claim_queue._waiters  # noqa: SLF001
    async with asyncio.timeout(10):
        for owner, count in claims.items():
            while len(waiters.of_owner(owner.replace("_", "/"))) != count:
                await asyncio.sleep(0.005)


async def test_a_goodbye_frees_what_the_owner_holds_and_ends_its_claims(tmp_path: Path) -> None:
    async with serving(tmp_path) as (instance, client):
        await submit(client, tasks=3)
        await claim(client, "w/1", limit=2)
        (kept,) = await claim(client, "w/2")
        idle = asyncio.create_task(claim(client, "w/1", kinds=["other"], wait_s=30))
        others = asyncio.create_task(claim(client, "w/2", kinds=["other"], wait_s=5))
        await waiting(instance, w_1=1, w_2=1)
        answer = await client.post("/v1/owners/w%2F1/goodbye", json={})
        assert answer.status_code == 200, answer.text
        assert sorted(each["task_id"] for each in answer.json()["released"]) == ["t0", "t1"]
        assert await asyncio.wait_for(idle, 20) == []
        assert not others.done()
        others.cancel()
        assert (await client.post("/v1/owners/w%2F1/goodbye", json={})).json() == {"released": []}
        assert {each["attempt"] for each in await claim(client, "w/3", limit=3)} == {2}
        assert (await view(client, kept["task_id"]))["owner"] == "w/2"
        assert (await client.post("/v1/owners/a%20b/goodbye", json={})).status_code == 404


@asynccontextmanager
async def two_instances(
    folder: Path, nats_url: str
) -> AsyncGenerator[list[tuple[Instance, httpx.AsyncClient]]]:
    """Two instances on one log, each with its client."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                serving(folder / name, nats__url=nats_url, executor__instance_id=name)
            )
            for name in ("here", "there")
        ]


async def test_a_goodbye_ends_the_claims_that_wait_at_another_instance(
    tmp_path: Path, private_nats: PrivateServer
) -> None:
    async with two_instances(tmp_path, private_nats.url) as (here, there):
        leaving = [asyncio.create_task(claim(each, "w/1", wait_s=30)) for _, each in (here, there)]
        staying = asyncio.create_task(claim(there[1], "w/2", wait_s=30))
        await waiting(here[0], w_1=1)
        await waiting(there[0], w_1=1, w_2=1)
        answer = await here[1].post("/v1/owners/w%2F1/goodbye", json={})
        assert answer.json() == {"released": []}
        assert await asyncio.wait_for(asyncio.gather(*leaving), 10) == [[], []]
        await submit(here[1], tasks=2)
        (granted,) = await staying
        assert granted["attempt"] == 1
        (again,) = await claim(there[1], "w/1", wait_s=10)
        assert again["attempt"] == 1, "an owner that asks anew is served anew"


async def test_a_claim_under_way_is_released_when_its_owner_left_at_another_instance(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (instance, client):
        core = instance.core
        for turns in range(1, 40):
            await submit(client, f"p{turns}")
            wanted = ClaimRequest(owner="w/1", kinds=("k",), wait_s=5)
            claiming = asyncio.create_task(core.claim(wanted, core.self_origin))
            for _ in range(turns):
                await asyncio.sleep(0)
            came_first = claiming.done()
            core.claim_queue.dismiss_elsewhere("w/1")
            granted = await claiming
            if came_first:
                await core.goodbye("w/1", "the test has ended", core.self_origin)
            else:
                assert not granted, turns
            async with asyncio.timeout(10):
                while core.board.places.running_count:
                    await asyncio.sleep(0.005)
            (next_one,) = await claim(client, "w/2")
            assert next_one["plan_id"] == f"p{turns}"
            done = {"owner": "w/2", "attempt": next_one["attempt"]}
            path = f"/v1/plans/p{turns}/tasks/t0/complete"
            assert (await client.post(path, json=done)).status_code == 200


async def test_one_chosen_task_is_claimed_or_its_status_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await submit(client, tasks=3, timeout_s=9)
        path = "/v1/plans/p/tasks/t1/claim"
        answer = await client.post(path, json={"owner": "w", "lease_s": 7, "start": True})
        assert answer.status_code == 200, answer.text
        chosen = answer.json()
        assert (chosen["task_id"], chosen["attempt"], chosen["lease_s"]) == ("t1", 1, 7)
        assert (chosen["started"], chosen["timeout_s"], chosen["checkpoints"]) == (True, 9, {})
        refused = await client.post(path, json={"owner": "v"})
        assert (refused.status_code, refused.json()["code"]) == (409, "not_allowed")
        assert refused.json()["current"]["status"] == "RUNNING"
        missing = await client.post("/v1/plans/p/tasks/none/claim", json={"owner": "v"})
        assert missing.status_code == 404
        assert len(await claim(client, "v", limit=9)) == 2


async def hang_up(instance: Instance, wait_s: float) -> None:
    """Ask for a task, and close the connection before the answer can be written."""
    port = int(instance.http_url.rsplit(":", 1)[1])
    body = json.dumps({"owner": "gone", "kinds": ["k"], "wait_s": wait_s}).encode()
    head = (
        f"POST /v1/claims HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


async def test_claims_whose_asker_hung_up_are_given_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as (instance, client):
        for round_ in range(40):
            await asyncio.gather(
                *(hang_up(instance, wait_s) for wait_s in (0, 0, 5, 5)),
                submit(client, f"p{round_}", tasks=2),
            )
        await waiting(instance, gone=0)
        async with asyncio.timeout(10):
            while held := [task for _, task in instance.core.board.places.running()]:
                assert all(task.owner == "gone" for task in held)
                await asyncio.sleep(0.01)
        lost = [task.lost + task.silent for plan in instance.core.board.plans.values()
                for task in plan.tasks.values()]  # fmt: skip
        assert sum(lost) == 0


async def test_a_frozen_owner_with_four_claims_loses_one_lease_beside_a_live_one(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (instance, client):
        frozen = [
            asyncio.create_task(claim(client, "frozen", wait_s=20, lease_s=1)) for _ in range(4)
        ]
        await waiting(instance, frozen=4)
        live = asyncio.create_task(claim(client, "live", wait_s=20, lease_s=30))
        await waiting(instance, live=1)
        await submit(client)
        (claimed,) = await live
        assert claimed["attempt"] == 2
        executions = (await view(client))["executions"]
        assert [each["status"] for each in executions] == ["lost", "running"]
        await waiting(instance, frozen=3)
        for each in frozen:
            each.cancel()


async def test_the_owner_that_lost_a_lease_gets_it_when_no_other_asks(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await submit(client)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await claim(client, "only", lease_s=1)
        (claimed,) = await claim(client, "only", wait_s=10, lease_s=30)
        assert claimed["attempt"] == 2
        assert loop.time() - began >= 1.25
