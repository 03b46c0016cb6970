"""The counters agree with one another and with the records, whatever way attempts have gone."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import Instance
from service.executor.running.pool import WorkerPool
from tests.identities import Snapshot, broken
from tests.integration.http_world import serving

Json = dict[str, Any]

PLANS = 6
FLAGS = {
    "executor__worker__core_size": 4,
    "executor__worker__queue_capacity": 2,
    "executor__command": {"false": {"argv": ["false"]}},
    # As a StatefulSet or systemd gives it: the next process has the same.
    "executor__instance_id": "pod-0",
}
RETRIED = {"max_retries": 1, "on_failure": "continue"}
TASKS = [
    *({"id": f"echo{n}", "kind": "echo"} for n in range(20)),
    {"id": "slow", "kind": "sleep", "input": {"seconds": 60}, "timeout_s": 0.2, **RETRIED},
    {"id": "forbidden", "kind": "command", "input": {"command": "false"}, **RETRIED},
    {"id": "nowhere", "kind": "http", "input": {"url": "http://127.0.0.1:9", "body": {}},
     "max_retries": 0, "on_failure": "continue"},
    {"id": "freed", "kind": "outside"},
    {"id": "failing", "kind": "outside", **RETRIED},
    {"id": "sleepy", "kind": "outside", "lease_s": 0.3, "max_lost_leases": 1,
     "on_failure": "continue"},
    {"id": "judged", "kind": "outside"},
    {"id": "critic", "kind": "outside", "type": "critic", "target": "judged",
     "depends_on": ["judged"]},
]  # fmt: skip


class Outside:
    """A worker outside that does to each task what its name says, and counts what it was given."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.claimed = 0
        self._released: set[str] = set()
        self._rejected: set[str] = set()

    async def work(self, owner: str) -> None:
        while True:
            wish = {"owner": owner, "kinds": ["outside"], "limit": 3, "wait_s": 1}
            claims = (await self.client.post("/v1/claims", json=wish)).json()["claims"]
            self.claimed += len(claims)
            for claim in claims:
                await self._do(owner, claim)

    async def _do(self, owner: str, claim: Json) -> None:
        plan_id, task_id = claim["plan_id"], claim["task_id"]
        match task_id:
            case "sleepy":
                return
            case "freed" if plan_id not in self._released:
                self._released.add(plan_id)
                word, said = "release", {}
            case "failing":
                word, said = "fail", {"error_type": "x", "retry_in_s": 0.01}
            case "critic":
                passes = plan_id in self._rejected
                self._rejected.add(plan_id)
                word, said = "complete", {"verdict": {"pass": passes}}
            case _:
                word, said = "complete", {}
        body = {"owner": owner, "attempt": claim["attempt"], **said}
        path = f"/v1/plans/{plan_id}/tasks/{task_id}/{word}"
        (await self.client.post(path, json=body)).raise_for_status()


async def scrape(client: httpx.AsyncClient) -> Snapshot:
    return Snapshot((await client.get("/metrics")).text)


async def records(client: httpx.AsyncClient) -> int:
    count, after = 0, None
    while True:
        asked = {"limit": 200} | ({"after": after} if after else {})
        page = (await client.get("/v1/executions", params=asked)).json()
        count, after = count + len(page["items"]), page["next"]
        if after is None:
            return count


async def at_rest(instance: Instance, client: httpx.AsyncClient) -> None:
    """Wait until every plan has its last fact and the executor is idle."""
    async with asyncio.timeout(40):
        while instance.core.board.plans or await busy(client):
            await asyncio.sleep(0.1)


async def busy(client: httpx.AsyncClient) -> float:
    now = await scrape(client)
    return now.sum("agent_task_worker_inflight_current") + now.sum(
        "agent_task_worker_queue_current"
    )


async def test_mixed_load_leaves_every_identity_exact_and_a_replay_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, **FLAGS) as (instance, client):
        outside = Outside(client)
        workers = [asyncio.create_task(outside.work(f"w{n}")) for n in range(3)]
        with monkeypatch.context() as patch:  # a pool that refuses some of what it has room for
            refusals = iter([True, False] * 3)
            patch.setattr(WorkerPool, "overdrawn", property(lambda _: next(refusals, False)))
            for n in range(PLANS):
                answer = await client.post("/v1/plans", json={"id": f"p{n}", "tasks": TASKS})
                assert answer.status_code == 201, answer.text
            cancelled = [{"id": "long", "kind": "sleep", "input": {"seconds": 60}}]
            await client.post("/v1/plans", json={"id": "gone", "tasks": cancelled})
            async with asyncio.timeout(20):
                while (await client.get("/v1/plans/gone")).json()["counts"].get("RUNNING") != 1:
                    await asyncio.sleep(0.05)
            await client.post("/v1/plans/gone/cancel", json={})
            await at_rest(instance, client)
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)
        now = await scrape(client)
        found = broken(now, claimed_outside=outside.claimed, records=await records(client))
        assert found == []
        for name, labels in [
            ("agent_task_dispatch_reject_total", {}),
            ("agent_task_claim_reclaimed_total", {}),
            ("agent_task_execution_timeout_retry_total", {}),
            ("agent_task_execution_timeout_final_fail_total", {}),
            *(("agent_task_execution_total", {"result": result})
              for result in ("completed", "failed", "released", "cancelled", "lost")),
        ]:  # fmt: skip
            assert now.sum(name, **labels) > 0, f"the load has not moved {name} {labels}"
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / "data" / f"readmodels.sqlite{suffix}").unlink(missing_ok=True)
    async with serving(tmp_path, **FLAGS) as (instance, client):
        assert instance.core.board.sequence > 0, "the log is read again from its beginning"
        again = await scrape(client)
        for name in (
            "agent_task_claim_success_total",
            "agent_task_execution_total",
            "agent_task_execution_failure_total",
            "agent_task_execution_tokens_total",
            "agent_plan_finished_total",
            "agent_projection_bad_event_total",
            "agent_audit_written_total",
        ):
            assert again.sum(name) == 0, f"{name} counts what an earlier life has counted"
        assert broken(again) == []
