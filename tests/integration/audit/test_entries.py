"""The audit trail end to end: from the fact or the refusal to GET /v1/audit, on a real log."""

import asyncio
from pathlib import Path

import nats
import pytest

from service.settings.config import ObservabilitySettings
from tests.integration.audit.world import VISIBLE_S, World, task
from tests.integration.http_world import serving, until_status
from tests.locked_file import locked

EVERYTHING = ObservabilitySettings(audit_success_log_enabled=True)


async def test_a_stale_worker_is_audited_with_both_owners_attempts_and_claims(
    world: World,
) -> None:
    await world.submit("p", task("t", "k"))
    old = await world.claim("k", "sleeper", lease_s=0.2)
    new = await world.claim("k", "next")
    for word, event in [
        ("complete", "claimed_update_guard_reject"),
        ("heartbeat", "lease_renew_guard_reject"),
    ]:
        assert (await world.say(word, old, "sleeper")).status_code == 409
        entry = await world.entry(event, plan_id="p")
        both = {
            "expected": {"owner": "sleeper", "attempt": 1, "sequence": old["fencing_token"]},
            "actual": {
                "status": "RUNNING",
                "owner": "next",
                "attempt": 2,
                "sequence": new["fencing_token"],
            },
        }
        assert {name: entry[name] for name in both} == both
        told = {"owner": "sleeper", "attempt": 1, "task_id": "t", "class": "always"}
        assert told.items() <= entry.items()
        assert entry["trace_id"] == "a" * 32
        assert entry["instance"] == world.core.instance_id
    reclaim = await world.entry("claim_reclaimed", task_id="t", owner="next")
    assert reclaim["expected"] == {
        "owner": "sleeper",
        "attempt": 1,
        "sequence": old["fencing_token"],
    }
    assert reclaim["actual"]["sequence"] == new["fencing_token"]


async def test_each_way_an_attempt_can_end_is_audited_once(world: World) -> None:
    world.core.audit.apply(EVERYTHING)
    budget = {"max_retries": 0, "on_failure": "continue"}
    await world.submit(
        "p",
        task("good", "good"),
        task("bad", "bad", **budget),
        task("slow", "slow", **budget),
        task("back", "back"),
        task("judged", "judged"),
        task("critic", "critic", type="critic", target="judged", depends_on=["judged"]),
        task("poison", "poison", max_lost_leases=0, on_failure="continue"),
        task("echo", "echo"),
    )
    good = await world.claim("good")
    await world.say("start", good)
    await world.say("complete", good, output=1)
    await world.say("fail", await world.claim("bad"), error_type="bad_input")
    await world.say("fail", await world.claim("slow"), error_type="timeout")
    await world.say("release", await world.claim("back"), reason="no time")
    await world.say("complete", await world.claim("judged"))
    verdict = {"pass": False, "feedback": "no"}
    await world.say("complete", await world.claim("critic"), verdict=verdict)
    await world.claim("poison", lease_s=0.1, start=True)
    await world.entry("task_poisoned", task_id="poison")
    await until_status(world.client, "/v1/plans/p/tasks/echo", "COMPLETED")
    await world.settled()
    told = sorted((e["event"], e["task_id"]) for e in await world.audit(plan_id="p"))
    assert told == sorted([
        *(("claim_acquired", name) for name in
          ("good", "bad", "slow", "back", "judged", "critic", "poison", "echo")),
        ("execution_started", "good"), ("execution_completed", "good"),
        ("execution_failed", "bad"), ("execution_timeout", "slow"), ("claim_released", "back"),
        ("execution_completed", "judged"), ("execution_completed", "critic"),
        ("execution_critic_rejected", "judged"), ("task_poisoned", "poison"),
        ("execution_started", "poison"), ("dispatch_submitted", "echo"),
        ("execution_started", "echo"),
        ("execution_completed", "echo"),
    ])  # fmt: skip


async def test_a_failure_in_a_failed_plan_is_not_called_tried_again(world: World) -> None:
    await world.submit("p", task("ends", "ends", max_retries=0), task("late", "late"))
    ends, late = await world.claim("ends"), await world.claim("late")
    await world.say("fail", ends, error_type="handler_error", error_message="broken")
    said = await world.say("fail", late, error_type="rate_limited", error_message="busy")
    assert said.status_code == 200, said.text
    entry = await world.entry("execution_failed", task_id="late")
    assert entry["detail"] == "rate_limited, not tried again, for the plan has failed: busy"
    assert entry["actual"]["status"] == "SKIPPED"
    skipped = (await world.client.get("/v1/plans/p/tasks/late")).json()
    assert (skipped["status"], skipped["error_type"]) == ("SKIPPED", None)
    assert [each["error_type"] for each in skipped["executions"]] == ["rate_limited"]


async def test_an_operators_command_is_audited_with_its_author_and_reason(world: World) -> None:
    await world.submit("p", task("t", "k", max_retries=0))
    await world.client.post("/v1/plans/p/pause", json={"reason": "lunch"})
    await world.client.post("/v1/plans/p/pause", json={"reason": "lunch"})
    await world.client.post("/v1/plans/p/resume", json={})
    await world.say("fail", await world.claim("k"), error_type="x", retryable=False)
    await world.client.post("/v1/plans/p/tasks/t/retry", json={"reason": "fixed"})
    await world.client.post("/v1/plans/p/cancel", json={"reason": "enough"})
    await world.settled()
    told = await world.audit(event="operator_action")
    assert [(e["actual"]["action"], e["actual"]["reason"], e["owner"]) for e in told] == [
        ("cancel", "enough", "operator"),
        ("retry", "fixed", "operator"),
        ("resume", "", "operator"),
        ("pause", "lunch", "operator"),
    ]
    assert told[1]["task_id"] == "t"


async def test_a_lease_that_an_operator_takes_back_is_audited_and_lost_to_its_owner(
    world: World,
) -> None:
    await world.submit("p", task("t", "k"))
    path = "/v1/plans/p/tasks/t/take-back"
    body = {"attempt": 1, "reason": "it hangs"}
    assert (await world.client.post(path, json=body)).json()["code"] == "not_allowed"
    claim = await world.claim("k")
    assert (await world.client.post(path, json=body | {"attempt": 2})).status_code == 409
    assert (await world.client.post("/v1/plans/p/tasks/u/take-back", json=body)).status_code == 404
    assert (await world.client.post(path, json=body)).json()["task"]["status"] == "READY"
    assert (await world.say("complete", claim)).status_code == 409
    again = await world.claim("k", "w2")
    assert (again["attempt"], again["retry"]) == (2, 0)
    entry = await world.entry("operator_action")
    assert (entry["task_id"], entry["owner"], entry["attempt"]) == ("t", "operator", None)
    assert entry["actual"]["action"] == "take_back"
    assert entry["actual"]["reason"] == "it hangs"


async def test_a_command_for_a_missing_task_is_audited_as_an_error(world: World) -> None:
    nowhere = {"plan_id": "no-such", "task_id": "t", "attempt": 1}
    assert (await world.say("complete", nowhere)).status_code == 404
    assert (await world.say("heartbeat", nowhere)).status_code == 404
    assert "no plan" in (await world.entry("claimed_update_error"))["detail"]
    assert "no plan" in (await world.entry("lease_renew_error"))["detail"]


async def test_a_message_published_by_hand_is_audited_with_its_sequence(world: World) -> None:
    await world.submit("p", task("t", "k"))
    client = await nats.connect(world.instance.nats_url)
    await client.jetstream().publish("plans.p.t", b"junk")
    entry = await world.entry("bad_event")
    assert entry["actual"] == {"sequence": 2, "subject": "plans.p.t"}
    assert (entry["plan_id"], entry["task_id"]) == ("p", "t")
    forged = b'{"event":"task.completed","owner":"thief","attempt":9}'
    await client.jetstream().publish("plans.p.t", forged)
    await client.close()
    async with asyncio.timeout(VISIBLE_S):
        while len(await world.audit(event="bad_event")) < 2:
            await asyncio.sleep(0.02)


async def test_a_rejected_dispatch_is_audited(tmp_path: Path) -> None:
    async with serving(tmp_path, executor__worker__core_size=1) as (instance, client):
        world = World(instance, client)
        (dispatcher,) = instance.executor.dispatchers  # type: ignore[union-attr]
        overdrawn = type(dispatcher.pool).overdrawn
        type(dispatcher.pool).overdrawn = property(lambda _: True)  # type: ignore[assignment]
        try:
            await world.submit("p", task("t", "echo"))
            entry = await world.entry("dispatch_rejected", plan_id="p")
        finally:
            type(dispatcher.pool).overdrawn = overdrawn  # type: ignore[method-assign]
        assert "full" in entry["detail"]
        assert entry["actual"]["sequence"] > 0
        await until_status(client, "/v1/plans/p/tasks/t", "COMPLETED")


async def test_a_handler_that_is_stopped_because_its_lease_is_lost_is_audited(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, executor__claim__heartbeat_s=0.2) as (instance, client):
        world = World(instance, client)
        await world.submit("p", task("t", "sleep", input={"seconds": 60}))
        await until_status(client, "/v1/plans/p/tasks/t", "RUNNING")
        await client.post("/v1/plans/p/cancel", json={})
        entry = await world.entry("lease_lost_cancelled", plan_id="p", task_id="t")
        who = {"owner": instance.core.instance_id, "attempt": 1}
        assert entry["class"] == "always"
        assert entry["expected"].items() >= who.items()
        assert entry["actual"]["status"] == "CANCELLED"
        assert entry["owner"] == who["owner"]
        assert "its lease is lost" in entry["detail"]


async def test_a_locked_database_is_audited_with_its_window(world: World) -> None:
    await world.submit("p", task("t", "k"))
    path = world.instance.settings.data_dir / "readmodels.sqlite"
    async with locked(path):
        async with asyncio.timeout(20):
            while world.core.conditions.database_outage.since is None:
                await asyncio.sleep(0.02)
        began = world.core.conditions.database_outage.since
    ended = world.core.now()
    async with asyncio.timeout(20):
        while not await world.audit(event="database_recovered"):
            await asyncio.sleep(0.05)
    (gone,) = await world.audit(event="database_error")
    (back,) = await world.audit(event="database_recovered")
    assert gone["actual"]["from"] == back["actual"]["from"]
    assert back["actual"]["seconds"] == pytest.approx(ended - began, abs=3)
