"""A worker outside that hangs and renews its lease is ended by the server."""

import asyncio
from pathlib import Path

from tests.integration.http_world import serving

TASK = "/v1/plans/p/tasks/t"


async def test_an_attempt_that_renews_for_ever_is_failed_as_timeout_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        task = {"id": "t", "kind": "outside", "timeout_s": 0.5, "lease_s": 1}
        await client.post("/v1/plans", json={"id": "p", "tasks": [task]})
        body = {"owner": "w", "start": True}
        (claim,) = (await client.post("/v1/claims", json=body)).json()["claims"]
        assert (claim["timeout_s"], claim["started"]) == (0.5, True)
        word = {"owner": "w", "attempt": 1}
        async with asyncio.timeout(20):
            while (await client.post(f"{TASK}/heartbeat", json=word)).status_code == 200:
                await asyncio.sleep(0.1)
        view = (await client.get(TASK)).json()
        assert view["status"] == "REFINING"
        assert view["error_type"] == "timeout"
        (attempt,) = view["executions"]
        assert 1.5 <= attempt["duration_s"] < 20
