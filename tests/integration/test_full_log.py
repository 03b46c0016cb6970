"""A log that nears its bound is named by readiness and doctor; at it, writes name the bound."""

from pathlib import Path

from tests.integration.http_world import serving
from tests.waiting import eventually

MOST = 400_000


async def test_a_log_at_its_bound_answers_507_and_was_named_before(tmp_path: Path) -> None:
    async with serving(tmp_path, nats__plans_max_bytes=MOST) as (instance, client):

        async def submitted(plan_id: str, size: int) -> tuple[int, str]:
            task = {"id": "t", "kind": "no-worker", "input": {"text": "x" * size}}
            answer = await client.post("/v1/plans", json={"id": plan_id, "tasks": [task]})
            return answer.status_code, answer.json().get("detail", "")

        def seen() -> int:
            state = instance.core.conditions.log_state
            return state.size_bytes if state is not None else 0

        assert await submitted("a", 330_000) == (201, "")
        await eventually(lambda: seen() > 330_000)
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert f"of the {MOST:,} bytes" in ready.text
        report = (await client.get("/v1/ops/doctor")).json()
        assert "LogNearlyFull" in [each["code"] for each in report["findings"]]
        status, detail = await submitted("b", 100_000)
        assert status == 507
        assert f"may hold {MOST:,} bytes" in detail
        assert "nats.plans_max_bytes" in detail
        assert (await client.get("/v1/plans/a")).status_code == 200
    async with serving(tmp_path, nats__plans_max_bytes=2 * MOST) as (instance, client):
        task = {"id": "t", "kind": "no-worker", "input": {"text": "x" * 100_000}}
        later = await client.post("/v1/plans", json={"id": "b", "tasks": [task]})
        assert later.status_code == 201, "a raised bound is in force at the next start"
        assert (await client.get("/v1/plans/a")).status_code == 200
