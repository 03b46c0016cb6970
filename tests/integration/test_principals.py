"""With tokens on a real instance: who wrote is in the log, and what a token began ends with it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import Instance
from service.principals.tokens_edit import revoke_token
from streams.log import Fact
from tests.integration.http_world import serving
from tests.unit.test_access import ROUTES
from tests.unit.tokens_world import bearer, give

TASK_ROUTE = "/v1/plans/{plan_id}/tasks/{task_id}"
# Every route on which a worker speaks, and what else it says there.
SPEAKING: dict[str, dict[str, Any]] = {
    **{f"{TASK_ROUTE}/{verb}": {} for verb in ("start", "heartbeat", "complete", "release")},
    f"{TASK_ROUTE}/claim": {},
    f"{TASK_ROUTE}/progress": {"data": 1},
    f"{TASK_ROUTE}/checkpoint": {"key": "k", "value": 1},
    f"{TASK_ROUTE}/fail": {"error_type": "x"},
    "/v1/claims": {},
    "/v1/heartbeats": {},
    "/v1/results": {},
    "/v1/owners/{owner}/goodbye": {},
}
RESULTS: tuple[dict[str, Any], ...] = (
    {"outcome": "completed"},
    {"outcome": "failed", "error_type": "x"},
    {"outcome": "released"},
    {"outcome": "checkpointed", "key": "k", "value": 1},
)

World = tuple[Instance, httpx.AsyncClient, dict[str, dict[str, str]]]
GRANTS = {"ann": ("operator",), "a": ("work",), "b": ("work",), "eve": ("read", "work")}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An instance, a client, and the headers of ann, who operates, and of workers a, b and eve."""
    path = tmp_path / "tokens.toml"
    headers = {name: bearer(give(path, name, *roles)) for name, roles in GRANTS.items()}
    async with serving(tmp_path, auth__tokens_file=str(path)) as (instance, client):
        yield instance, client, headers


async def claim(client: httpx.AsyncClient, headers: dict[str, str], owner: str) -> dict[str, Any]:
    body = {"owner": owner, "kinds": ["outside"], "wait_s": 10, "lease_s": 30}
    answer = await client.post("/v1/claims", json=body, headers=headers)
    (claimed,) = answer.raise_for_status().json()["claims"]
    return claimed


async def submit(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    plan = {"id": "p", "tasks": [{"id": "t", "kind": "outside"}, {"id": "e", "kind": "echo"}]}
    (await client.post("/v1/plans", json=plan, headers=headers)).raise_for_status()


def revoke(tmp_path: Path, headers: dict[str, str]) -> None:
    revoke_token(tmp_path / "tokens.toml", headers["Authorization"].split("_")[1])


async def principals(instance: Instance) -> dict[str, set[str]]:
    """The principals of each actor's facts."""
    found: dict[str, set[str]] = {}
    for fact in await instance.core.log.read("p"):
        assert isinstance(fact, Fact)
        found.setdefault(fact.origin.actor, set()).add(fact.origin.principal)
    return found


def test_the_table_has_every_route_on_which_a_worker_speaks() -> None:
    assert set(SPEAKING) == {path for _, path, permission in ROUTES if permission == "work"}


async def test_a_worker_cannot_report_for_another_and_every_fact_names_its_principal(
    world: World,
) -> None:
    instance, client, headers = world
    await submit(client, headers["ann"])
    claimed = await claim(client, headers["a"], "a/host:1")
    item = {"plan_id": "p", "task_id": "t", "attempt": claimed["attempt"]}
    task = "/v1/plans/p/tasks/t"
    facts = len(await instance.core.log.read("p", "t"))
    held = {"owner": "a/host:1", "attempt": claimed["attempt"]}
    for route, body in SPEAKING.items():
        path = route.format(plan_id="p", task_id="t", owner="a%2Fhost:1")
        given = {"leases": [item]} if route == "/v1/heartbeats" else body
        if route == "/v1/results":
            given = {"results": [item | each for each in RESULTS]}
        needs_attempt = route.startswith(TASK_ROUTE) and not route.endswith("/claim")
        owner = {} if "{owner}" in route else {"owner": "a/host:1"}
        sent = given | owner | (held if needs_attempt else {})
        answer = await client.post(path, json=sent, headers=headers["b"])
        assert answer.status_code == 403, f"{route}: {answer.text}"
    # An executor's id is no name of a token, so no token can report for the executor.
    body = {"owner": instance.core.instance_id, "attempt": 1}
    for each in headers.values():
        answer = await client.post("/v1/plans/p/tasks/e/complete", json=body, headers=each)
        assert answer.status_code == 403
    assert len(await instance.core.log.read("p", "t")) == facts
    body = {"owner": "a/host:1", "attempt": claimed["attempt"]}
    done = await client.post(f"{task}/complete", json=body, headers=headers["a"])
    assert done.status_code == 200
    async with asyncio.timeout(20):
        shown = client.get("/v1/plans/p", headers=headers["ann"])
        while (await shown).json()["status"] != "COMPLETED":
            shown = client.get("/v1/plans/p", headers=headers["ann"])
    own = instance.core.instance_id
    assert await principals(instance) == {"ann": {"ann"}, "a/host:1": {"a"}, own: {own}}


async def test_a_stale_write_names_the_principal_in_the_audit_trail_and_in_the_diagnosis(
    world: World,
) -> None:
    instance, client, headers = world
    await submit(client, headers["ann"])
    body = {"owner": "a/1", "kinds": ["outside"], "wait_s": 10, "lease_s": 0.1}
    answer = await client.post("/v1/claims", json=body, headers=headers["a"])
    assert answer.json()["claims"]
    await claim(client, headers["b"], "b")
    stale = {"owner": "a/1", "attempt": 1}
    path = "/v1/plans/p/tasks/t/complete"
    assert (await client.post(path, json=stale, headers=headers["a"])).status_code == 409
    event = "/v1/audit?event=claimed_update_guard_reject"
    async with asyncio.timeout(10):
        while not (found := (await client.get(event, headers=headers["ann"])).json()["items"]):
            await asyncio.sleep(0.02)
    assert (found[0]["owner"], found[0]["principal"]) == ("a/1", "a")
    async with asyncio.timeout(10):
        while True:
            report = await client.get("/v1/ops/doctor", headers=headers["ann"])
            codes = {each["code"]: each for each in report.json()["findings"]}
            if "writes" in codes.get("StaleWriters", {}).get("evidence", {}):
                break
            await asyncio.sleep(0.1)
    assert codes["StaleWriters"]["evidence"]["writes"][0]["principal"] == "a"
    assert "a/1 (written by the principal a)" in codes["StaleWriters"]["summary"]
    del instance


async def test_streams_and_waiting_claims_end_with_their_token(
    world: World, tmp_path: Path
) -> None:
    instance, client, headers = world
    waiting = asyncio.create_task(
        client.post(
            "/v1/claims",
            json={"owner": "eve", "kinds": ["nothing"], "wait_s": 30},
            headers=headers["eve"],
        )
    )
    kept = asyncio.create_task(
        client.post(
            "/v1/claims",
            json={"owner": "b", "kinds": ["outside"], "wait_s": 30},
            headers=headers["b"],
        )
    )
    async with client.stream("GET", "/v1/events", headers=headers["eve"]) as stream:
        lines = stream.aiter_lines()
        async with asyncio.timeout(10):
            while await anext(lines) != "event: caught_up":
                pass
            while instance.core.claim_queue.asking < 2:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(revoke, tmp_path, headers["eve"])
        async with asyncio.timeout(10):
            rest = [line async for line in lines]
    assert 'data: {"reason":"unauthorized"}' in rest
    ended = await waiting
    assert (ended.status_code, ended.json()["code"]) == (401, "unauthorized")
    assert (await client.get("/v1/plans", headers=headers["eve"])).status_code == 401
    await submit(client, headers["ann"])
    assert (await kept).json()["claims"]


async def test_a_session_serves_streams_and_every_instance_of_the_file(
    world: World, tmp_path: Path
) -> None:
    instance, client, headers = world
    token = headers["ann"]["Authorization"].removeprefix("Bearer ")
    (await client.post("/v1/session", json={"token": token})).raise_for_status()
    (tmp_path / "other").mkdir()
    tokens = {"auth__tokens_file": str(tmp_path / "tokens.toml")}
    async with (
        client.stream("GET", "/v1/events") as stream,
        serving(tmp_path / "other", **tokens) as (another, _),
    ):
        assert stream.status_code == 200
        there = await client.get(f"{another.http_url}/v1/plans")
        assert there.status_code == 200
    signed_out = await client.request("DELETE", "/v1/session", json={})
    assert signed_out.status_code == 200
    assert (await client.get("/v1/plans")).status_code == 401
    del instance
