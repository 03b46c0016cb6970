"""Why, workers and the past over HTTP, on a real log."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from service.runtime.data_folder import READ_MODELS
from tests.integration.http_world import serving, until_status
from tests.locked_file import locked


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tmp_path) as (_, client):
        yield client


async def submit(client: httpx.AsyncClient, plan_id: str, *tasks: dict[str, Any]) -> None:
    body = {"id": plan_id, "tasks": [{"kind": "outside"} | task for task in tasks]}
    assert (await client.post("/v1/plans", json=body)).status_code == 201


async def claim(client: httpx.AsyncClient, owner: str) -> dict[str, Any]:
    body = {"owner": owner, "kinds": ["outside"], "wait_s": 5}
    (found,) = (await client.post("/v1/claims", json=body)).json()["claims"]
    return dict(found)


async def test_a_misspelt_kind_is_named_at_once(client: httpx.AsyncClient) -> None:
    await submit(client, "p", {"id": "a", "kind": "ecko"})
    told = (await client.get("/v1/plans/p/tasks/a/why")).json()
    assert told["answer"].startswith("Task 'a' waits because no worker has asked for kind 'ecko'")
    assert told["reasons"][0]["code"] == "no_worker"
    assert told["reasons"][0]["evidence"]["did_you_mean"] == "echo"
    whole = (await client.get("/v1/plans/p/why")).json()
    assert whole["reasons"][0]["code"] == "no_worker"


async def test_a_lease_is_explained_with_the_sequence_of_its_claim(
    client: httpx.AsyncClient,
) -> None:
    await submit(client, "p", {"id": "a"})
    lease = await claim(client, "w1")
    told = (await client.get("/v1/plans/p/tasks/a/why")).json()
    (reason,) = told["reasons"]
    assert reason["code"] == "lease_held"
    assert lease["fencing_token"] in reason["evidence"]["sequences"]
    assert told["sequence"] >= lease["fencing_token"]


async def test_a_finished_plan_that_left_memory_is_explained(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        plan = {"id": "p", "tasks": [{"id": "a", "kind": "echo"}]}
        await client.post("/v1/plans", json=plan)
        await until_status(client, "/v1/plans/p", "COMPLETED")
    async with serving(tmp_path) as (instance, client):
        assert instance.core.board.knows("p") is None
        told = (await client.get("/v1/plans/p/why")).json()
    assert told["answer"] == "Plan 'p' has ended as COMPLETED."


async def test_why_does_not_wait_for_the_read_models(tmp_path: Path) -> None:
    """Right after a large submit they are some hundred milliseconds behind the board."""
    async with serving(tmp_path) as (instance, client), locked(tmp_path / "data" / READ_MODELS):
        await submit(client, "p", {"id": "a"})
        for path in ("/v1/plans/p/why", "/v1/plans/p/tasks/a/why"):
            told = (await client.get(path)).json()
            assert told["reasons"][0]["code"] == "no_worker"
            assert instance.core.projector.flushed_sequence < told["sequence"]


async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    await submit(client, "p", {"id": "a"})
    for path in ("/v1/plans/q/why", "/v1/plans/p/tasks/b/why", "/v1/plans/p?at_sequence=0"):
        answer = await client.get(path)
        assert answer.status_code in (400, 404), path
        assert answer.headers["content-type"] == "application/problem+json"


async def test_workers_show_leases_claims_and_refusals(client: httpx.AsyncClient) -> None:
    await submit(client, "p", {"id": "a"}, {"id": "b"})
    lease = await claim(client, "w1")
    late = {"owner": "w2", "attempt": lease["attempt"]}
    refused = await client.post(f"/v1/plans/p/tasks/{lease['task_id']}/complete", json=late)
    assert refused.status_code == 409
    told = (await client.get("/v1/workers")).json()
    seen = {each["owner"]: each for each in told["workers"]}
    assert (seen["w1"]["leases_held"], seen["w1"]["kinds"]) == (1, ["outside"])
    assert seen["w1"]["leases"][0]["task_id"] == lease["task_id"]
    assert seen["w1"]["last_sign_of_life"] is not None
    assert seen["w2"]["refused"] == 1
    assert seen["w2"]["last_refusals"][0]["operation"] == "complete"
    assert told["total"] == len(told["workers"])  # the executor here is one of them


async def test_a_plan_is_shown_as_it_was(client: httpx.AsyncClient) -> None:
    large = {"text": "x" * 100_000}
    await submit(client, "p", {"id": "a"}, {"id": "b", "depends_on": ["a"]})
    lease = await claim(client, "w1")
    body = {"owner": "w1", "attempt": 1, "output": large}
    done = (await client.post("/v1/plans/p/tasks/a/complete", json=body)).json()
    claimed = lease["fencing_token"]
    seen = [
        {each["task_id"]: each["status"] for each in then["tasks"]}
        for at in (claimed - 1, claimed, done["sequence"])
        for then in [(await client.get(f"/v1/plans/p?at_sequence={at}")).json()]
    ]
    assert seen == [
        {"a": "READY", "b": "PENDING"},
        {"a": "RUNNING", "b": "PENDING"},
        {"a": "COMPLETED", "b": "READY"},
    ]
    now = (await client.get("/v1/plans/p")).json()
    assert (await client.get(f"/v1/plans/p?at_sequence={done['sequence']}")).json() == now
    assert now["tasks"][0]["truncated"] == ["output"]


async def test_a_plan_before_its_submission_is_not_found(
    client: httpx.AsyncClient,
) -> None:
    await submit(client, "first", {"id": "a"})
    await submit(client, "p", {"id": "a"})
    early = await client.get("/v1/plans/p?at_sequence=1")
    assert (early.status_code, early.json()["detail"]) == (
        404,
        "there is no plan 'p' at sequence 1",
    )


async def test_a_moment_beyond_the_end_of_the_log_is_refused_at_once_with_the_end(
    client: httpx.AsyncClient,
) -> None:
    await submit(client, "p", {"id": "a"})
    head = (await client.get("/v1/plans/p")).json()["sequence"]
    for plan_id in ("p", "unknown"):
        refused = await client.get(f"/v1/plans/{plan_id}?at_sequence={head + 1}")
        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (400, "invalid_request")
        assert problem["sequence"] == head
        assert problem["detail"] == (
            f"at_sequence: the log has no sequence {head + 1} yet, its last one is {head}"
        )
