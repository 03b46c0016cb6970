"""Many owner writes in one request, while the log fails some of them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from streams.log import Appended, AppendError, Conflict, Draft, LogUnavailable
from tests.integration.http_world import serving

TASKS = [f"t{n}" for n in range(5)]


async def test_writes_beside_one_that_fails_are_awaited_and_sent_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (instance, client):
        tasks = [{"id": name, "kind": "outside"} for name in TASKS]
        await client.post("/v1/plans", json={"id": "p", "tasks": tasks})
        claim = {"owner": "w", "kinds": ["outside"], "limit": len(TASKS)}
        assert len((await client.post("/v1/claims", json=claim)).json()["claims"]) == len(TASKS)
        append_all, sent, under_way = instance.core.log.append_all, list[str | None](), 0

        async def failing_once(drafts: Sequence[Draft]) -> list[Appended | Conflict | AppendError]:
            nonlocal under_way
            fails = "t0" not in sent
            sent.extend(draft.task_id for draft in drafts)
            under_way += 1
            await asyncio.sleep(0.05)
            kept = [draft for draft in drafts if draft.task_id != "t0" or not fails]
            answers = iter(await append_all(kept))
            under_way -= 1
            gone = LogUnavailable("the log does not answer")
            return [next(answers) if draft in kept else gone for draft in drafts]

        monkeypatch.setattr(instance.core.log, "append_all", failing_once)
        ended = {"plan_id": "p", "attempt": 1, "outcome": "completed"}
        results = {"owner": "w", "results": [ended | {"task_id": name} for name in TASKS]}
        answer = await client.post("/v1/results", json=results)
        assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
        assert under_way == 0
        assert sorted(filter(None, sent)) == TASKS
        answer = await client.post("/v1/results", json=results)
        statuses = [each["status"] for each in answer.json()["results"]]
        assert statuses == ["accepted", *["duplicate"] * 4]
