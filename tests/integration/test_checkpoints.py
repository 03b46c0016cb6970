"""Checkpoints over HTTP: kept, handed to the next attempt, bounded, the same after a restart."""

from pathlib import Path
from typing import Any

import httpx

from tests.integration.http_world import serving

KIB = 1024
AT = "/v1/plans/p/tasks/t"


async def submit(client: httpx.AsyncClient, plan_id: str = "p", **task: Any) -> None:
    plan = {"id": plan_id, "tasks": [{"id": "t", "kind": "outside", **task}]}
    assert (await client.post("/v1/plans", json=plan)).status_code == 201


async def claim(client: httpx.AsyncClient, owner: str = "w", **more: Any) -> dict[str, Any]:
    body = {"owner": owner, "kinds": ["outside"], **more}
    (claimed,) = (await client.post("/v1/claims", json=body)).json()["claims"]
    return claimed


async def keep(
    client: httpx.AsyncClient, key: str, value: object, attempt: int = 1, **more: Any
) -> httpx.Response:
    body = {"owner": "w", "attempt": attempt, "key": key, "value": value, **more}
    return await client.post(f"{AT}/checkpoint", json=body)


async def fail(client: httpx.AsyncClient, attempt: int, **more: Any) -> None:
    body = {"owner": "w", "attempt": attempt, "error_type": "other", "retry_in_s": 0, **more}
    assert (await client.post(f"{AT}/fail", json=body)).status_code == 200


async def test_what_an_attempt_kept_is_in_the_next_claim_and_in_the_view(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await submit(client, lease_s=30)
        first = await claim(client)
        assert first["checkpoints"] == {}
        answer = await keep(client, "state", {"n": [1, 2]})
        assert answer.status_code == 200
        assert answer.json()["status"] == "accepted"
        assert answer.json()["lease_until"] > first["lease_until"]
        await keep(client, "schritt/größe", None)
        await keep(client, "state", {"n": 3})
        view = (await client.get(AT)).json()
        assert view["checkpoints"] == {"schritt/größe": None, "state": {"n": 3}}
        await fail(client, 1)
        assert (await claim(client))["checkpoints"] == view["checkpoints"]
        done = {"owner": "w", "attempt": 2, "output": 1}
        assert (await client.post(f"{AT}/complete", json=done)).status_code == 200
        assert (await client.get(AT)).json()["checkpoints"] == {}


async def test_a_stale_attempts_checkpoint_is_a_409_and_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await submit(client)
        await claim(client)
        await keep(client, "s", 1)
        await fail(client, 1)
        await claim(client)
        before = (await client.get(AT)).json()
        answer = await keep(client, "s", 2, attempt=1)
        assert answer.status_code == 409
        assert answer.json()["code"] == "guard_reject"
        assert (await client.get(AT)).json() == before


async def test_beyond_the_bounds_is_a_413_that_names_what(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await submit(client)
        await claim(client)
        text = "x" * (64 * KIB - 2)
        assert (await keep(client, "k", text)).status_code == 200
        for key, value, culprit in (("k", text + "y", "value"), ("", 1, "key")):
            answer = await keep(client, key, value)
            assert answer.status_code == (413 if key else 400)
            assert answer.json()["detail"].startswith(culprit)
        for key in range(15):
            assert (await keep(client, f"k{key}", text)).status_code == 200
        answer = await keep(client, "one more", text)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_checkpoints_come_in_batches_with_results(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await submit(client)
        await claim(client)
        item = {"plan_id": "p", "task_id": "t", "outcome": "checkpointed", "key": "s", "value": 7}
        body = {"owner": "w", "results": [item | {"attempt": 1}, item | {"attempt": 2}]}
        (kept, refused) = (await client.post("/v1/results", json=body)).json()["results"]
        assert kept["status"] == "accepted"
        assert kept["lease_until"]
        assert refused["status"] == "guard_reject"
        assert (await client.get(AT)).json()["checkpoints"] == {"s": 7}


async def test_an_operators_retry_keeps_them_unless_it_is_fresh(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await submit(client)
        for attempt, fresh in ((1, False), (2, True)):
            await claim(client)
            await keep(client, "s", attempt, attempt)
            await fail(client, attempt, retryable=False)
            answer = await client.post(f"{AT}/retry", json={"fresh": fresh})
            assert answer.status_code == 200
            kept = (await client.get(AT)).json()["checkpoints"]
            assert kept == ({} if fresh else {"s": attempt})


async def test_streams_show_checkpoints_only_to_those_who_ask(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await submit(client)
        await claim(client)
        await keep(client, "s", "secret of the step")
        await client.post(f"{AT}/complete", json={"owner": "w", "attempt": 1})
        assert "step" not in await events(client, "")
        assert '"key":"s","value":"secret of the step"' in await events(
            client, "?types=task.checkpointed"
        )


async def events(client: httpx.AsyncClient, query: str) -> str:
    """The plan's events, up to its end."""
    async with client.stream("GET", f"/v1/plans/p/events{query}") as stream:
        return "".join([text async for text in stream.aiter_text()])


async def test_a_restarted_instance_reads_them_back_from_the_log(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await submit(client)
        await claim(client)
        for n in range(20):
            await keep(client, f"k{n}", {"n": n, "text": "x" * 1000})
        await keep(client, "k0", "newer")
        await fail(client, 1)
        shown = (await client.get(AT)).json()["checkpoints"]
    async with serving(tmp_path) as (instance, client):
        plan = instance.core.board.knows("p")
        assert plan is not None
        kept = plan.tasks["t"].checkpoints or {}
        assert len(kept) == 20
        assert all(each.held is None for each in kept.values())
        claimed = await claim(client)
        assert claimed["attempt"] == 2
        assert claimed["checkpoints"] == shown
