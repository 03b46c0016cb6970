"""Whole instances that share one NATS: each sees its own log, and nothing of the other's."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import nats

from service.app import Instance
from tests.conftest import PrivateServer
from tests.faults.service_process import run_holdfast
from tests.integration.http_world import serving, until_status
from tests.integration.sse_world import Stream
from tests.ports import free_port


async def work_off(client: httpx.AsyncClient, mark: str, refused: int = 1) -> None:
    """A plan with the id that both logs have, worked off outside and inside, and refused writes."""
    tasks = [{"id": "t", "kind": "echo", "input": mark}, {"id": f"out-{mark}", "kind": "outside"}]
    submitted = await client.post("/v1/plans", json={"id": "same", "tasks": tasks})
    assert (submitted.status_code, submitted.json()["created"]) == (201, True)
    await until_status(client, "/v1/plans/same/tasks/t", "COMPLETED")
    asked = {"owner": f"w-{mark}", "kinds": ["outside"], "limit": 10}
    claims = (await client.post("/v1/claims", json=asked)).json()["claims"]
    assert [each["task_id"] for each in claims] == [f"out-{mark}"]
    path = f"/v1/plans/same/tasks/out-{mark}"
    stale = {"owner": "stranger", "attempt": 1}
    for _ in range(refused):
        assert (await client.post(f"{path}/complete", json=stale)).status_code == 409
    done = {"owner": f"w-{mark}", "attempt": 1, "output": mark}
    assert (await client.post(f"{path}/complete", json=done)).status_code == 200
    await until_status(client, "/v1/plans/same", "COMPLETED")


async def shows_only(instance: Instance, client: httpx.AsyncClient, mark: str, other: str) -> None:
    """Every read of an instance holds what is its own and nothing of the other's."""
    assert (await client.get("/v1/plans/same/tasks/t")).json()["output"] == mark
    async with asyncio.timeout(20):
        while f"w-{mark}" not in (audit := (await client.get("/v1/audit?limit=100")).text):
            await asyncio.sleep(0.05)
    async with Stream(instance.http_url, "/v1/events?after=0") as stream:
        events = "".join(each.data for each in await stream.until("caught_up"))
    for seen in (audit, events, (await client.get("/v1/tasks")).text):
        assert f"out-{mark}" in seen
        assert f"out-{other}" not in seen
    assert f"out-{other}" not in (await client.get("/v1/ops/doctor")).text


async def said_by(command: str, folder: Path, url: str, prefix: str) -> str:
    """What a command of the command line says about the log with that prefix."""
    places: dict[str, Any] = {
        "data_dir": str(folder / "data"),
        "nats__url": url,
        "nats__prefix": prefix,
    }
    return (await asyncio.to_thread(lambda: run_holdfast(*command.split(), **places)))[1]


async def test_two_instances_with_two_prefixes_on_one_server_see_their_own_alone(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    url, marks = private_nats.url, {"": "plain", "blue": "tinted"}
    folders = {prefix: tmp_path / marks[prefix] for prefix in marks}
    async with AsyncExitStack() as stack:
        worlds = {
            prefix: await stack.enter_async_context(
                serving(folders[prefix], nats__url=url, nats__prefix=prefix)
            )
            for prefix in marks
        }
        for prefix, (_, client) in worlds.items():
            await work_off(client, marks[prefix], refused=2 if prefix else 1)
        for prefix, other in (("", "blue"), ("blue", "")):
            await shows_only(*worlds[prefix], marks[prefix], marks[other])
            said = await said_by("rebuild --verify", folders[prefix], url, prefix)
            assert "equal" in said
    for prefix, refused in (("", 1), ("blue", 2)):
        said = await said_by("doctor --json", folders[prefix], url, prefix)
        answers = {each["question"]: each["numbers"] for each in json.loads(said)["answers"]}
        assert answers["stale_writers"]["refusals_in_audit"] == refused
        assert (
            answers["internals"]["log"]["head"] == answers["internals"]["read_models"]["sequence"]
        )


async def test_an_instance_at_a_leaf_node_keeps_its_log_in_the_domain_of_the_hub(
    start_nats: Callable[..., PrivateServer], tmp_path: Path
) -> None:
    port = free_port()
    hub, leaf = tmp_path / "hub.conf", tmp_path / "leaf.conf"
    hub.write_text(f'jetstream {{ domain: hub }}\nleafnodes {{ listen: "127.0.0.1:{port}" }}\n')
    leaf.write_text(
        "jetstream { domain: edge }\n"
        f'leafnodes {{ remotes: [ {{ url: "nats-leaf://127.0.0.1:{port}" }} ] }}\n'
    )
    at_hub, at_leaf = start_nats(hub), start_nats(leaf)
    settings: dict[str, Any] = {
        "nats__url": at_leaf.url,
        "nats__domain": "hub",
        "nats__prefix": "far",
    }
    async with serving(tmp_path / "one", **settings) as (_, client):
        await work_off(client, "far")
        _, said = await asyncio.to_thread(
            lambda: run_holdfast(
                "rebuild", "--verify", data_dir=str(tmp_path / "one" / "data"), **settings
            )
        )
        assert "equal" in said
    async with serving(tmp_path / "two", **settings) as (_, client):
        await until_status(client, "/v1/plans/same", "COMPLETED")
    streams = {}
    for server in (at_hub, at_leaf):
        line = await nats.connect(server.url)
        streams[server] = {each.config.name for each in await line.jetstream().streams_info()}
        await line.close()
    assert streams == {at_hub: {"far-PLANS", "far-AUDIT"}, at_leaf: set()}
