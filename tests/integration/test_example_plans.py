"""Every plan in examples/plans runs to its end, as examples/README.md says."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.http_world import serving, until_status

EXAMPLES = Path(__file__).parents[2] / "examples"
PLANS = {path.name: path.read_text() for path in sorted((EXAMPLES / "plans").glob("*.json"))}
KINDS = ("approval", "draft", "review")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tmp_path) as (_, client):
        yield client


class Worker:
    """Does the tasks for which Holdfast has no handler; rejects the first draft."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.feedback: list[Any] = []

    async def work(self) -> None:
        """Claim and complete, until cancelled."""
        wanted = {"owner": "ada", "kinds": KINDS, "wait_s": 1}
        while True:
            answer = await self.client.post("/v1/claims", json=wanted)
            for claim in answer.json()["claims"]:
                await self._complete(claim)

    async def _complete(self, claim: dict[str, Any]) -> None:
        result: dict[str, Any] = {"output": {"approved": True}}
        if claim["kind"] == "draft":
            self.feedback.append(claim["feedback"])
        if claim["kind"] == "review":
            passes = len(self.feedback) > 1
            result["verdict"] = {"pass": passes, "feedback": "" if passes else "shorter"}
        path = f"/v1/plans/{claim['plan_id']}/tasks/{claim['task_id']}/complete"
        done = await self.client.post(
            path, json={"owner": "ada", "attempt": claim["attempt"], **result}
        )
        assert done.is_success, done.text


@pytest.mark.parametrize("name", PLANS)
async def test_a_plan_completes(client: httpx.AsyncClient, name: str) -> None:
    worker = Worker(client)
    working = asyncio.create_task(worker.work())
    answer = await client.post("/v1/plans", content=PLANS[name], headers=JSON)
    assert answer.status_code == httpx.codes.CREATED, answer.text
    await until_status(client, f"/v1/plans/{answer.json()['plan_id']}", "COMPLETED")
    working.cancel()
    await asyncio.wait([working])
    assert worker.feedback in ([], [None, "shorter"])


JSON = {"Content-Type": "application/json"}


def test_the_page_lists_every_plan() -> None:
    page = (EXAMPLES / "README.md").read_text()
    assert PLANS
    assert [name for name in PLANS if f"(plans/{name})" not in page] == []
    assert all(json.loads(text)["name"] for text in PLANS.values())
