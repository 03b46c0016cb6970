"""The audit trail end to end: from the fact or the refusal to GET /v1/audit, on a real log."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import nats
import pytest

from projections.read_models.audit_tail import AuditTail
from service.app import Instance
from service.settings.config import ObservabilitySettings
from tests.conftest import PrivateServer
from tests.integration.http_world import serving, until_status
from tests.locked_file import locked

Json = dict[str, Any]
Page = list[Json]
EVERYTHING = ObservabilitySettings(audit_success_log_enabled=True)
DONE_HERE = ("operator_action", "bad_event")
VISIBLE_S = 20.0  # it is a tenth of that on an idle machine


class World:
    """One instance and what a worker, an operator and a vandal do to it."""

    def __init__(self, instance: Instance, client: httpx.AsyncClient) -> None:
        self.instance = instance
        self.core = instance.core
        self.client = client

    async def submit(self, plan_id: str, *tasks: Json) -> None:
        body = {"id": plan_id, "tasks": tasks}
        (await self.client.post("/v1/plans", json=body)).raise_for_status()

    async def claim(self, kind: str, owner: str = "w", lease_s: float = 60, **more: Any) -> Json:
        wish = {"owner": owner, "kinds": [kind], "lease_s": lease_s, "wait_s": 10, **more}
        (claim,) = (await self.client.post("/v1/claims", json=wish)).json()["claims"]
        return claim

    async def say(self, word: str, claim: Json, owner: str = "w", **said: Any) -> httpx.Response:
        path = f"/v1/plans/{claim['plan_id']}/tasks/{claim['task_id']}/{word}"
        body = {"owner": owner, "attempt": claim["attempt"], **said}
        return await self.client.post(path, json=body, headers={"X-Trace-Id": "a" * 32})

    async def audit(self, **filters: Any) -> Page:
        answer = await self.client.get("/v1/audit", params={"limit": 200, **filters})
        return answer.raise_for_status().json()["items"]

    async def entry(self, event: str, **filters: Any) -> Json:
        """The newest entry of an event, as soon as it can be seen."""
        async with asyncio.timeout(VISIBLE_S):
            while not (found := await self.audit(event=event, **filters)):
                await asyncio.sleep(0.02)
        return found[0]

    async def told(self) -> Page:
        """The entries of what was done here; a busy machine may add some of its own."""
        return [each for each in await self.audit() if each["event"] in DONE_HERE]

    async def settled(self) -> None:
        """Wait until all entries so far are stored."""
        audit = self.core.audit
        async with asyncio.timeout(VISIBLE_S):
            while audit.waiting:
                await asyncio.sleep(0.02)
            head = (await self.instance_trail()).head
            while (await self.core.database.checkpoint("AUDIT") or ZERO).sequence < head:
                await asyncio.sleep(0.02)

    async def instance_trail(self) -> Any:
        return await self.core.log.trail.extent()  # type: ignore[attr-defined]


def bad_events(world: World) -> float:
    shown = world.core.metrics.shown("agent.projection.bad_event.total")
    assert shown is not None
    return sum(each.value or 0 for each in shown.values)


class _Zero:
    sequence = 0


ZERO = _Zero()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path) as (instance, client):
        yield World(instance, client)


@pytest.fixture
async def world_beside(tmp_path: Path, private_nats: PrivateServer) -> AsyncIterator[World]:
    """A world on a server without users, so that a test may do what the service may not."""
    async with serving(tmp_path, nats__url=private_nats.url) as (instance, client):
        yield World(instance, client)


def task(id: str, kind: str, **more: Any) -> Json:
    return {"id": id, "kind": kind, **more}


# -- what is audited --------------------------------------------------------------------------


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


# -- where it is shown ------------------------------------------------------------------------


async def test_an_entry_is_a_message_and_a_log_line_too(
    world_beside: World, caplog: pytest.LogCaptureFixture
) -> None:
    client = await nats.connect(world_beside.instance.nats_url)
    heard = await client.subscribe("audit.operator_action.>")
    await client.request("$JS.API.INFO", b"")  # the subscription has reached the server
    with caplog.at_level(logging.INFO, "holdfast.audit"):
        await world_beside.submit("p", task("t", "k"))
        await world_beside.client.post("/v1/plans/p/pause", json={"reason": "lunch"})
        message = await heard.next_msg(5)
    await client.close()
    assert message.subject == "audit.operator_action.p.~"
    said = json.loads(message.data)
    assert said["detail"] == "pause by operator: lunch"
    lines = [json.loads(r.getMessage()) for r in caplog.records if r.name == "holdfast.audit"]
    (line,) = [line for line in lines if line["event"] == "operator_action"]
    assert {**line, "at": said["at"]} == {**said, "level": "warning", "logger": "holdfast.audit"}


async def test_the_settings_decide_what_is_audited(world: World) -> None:
    audit = world.core.audit
    await world.submit("p", task("a", "k"), task("b", "k"), task("c", "k"))
    await world.claim("k")  # by default the success class is off
    audit.apply(EVERYTHING)
    on = await world.claim("k")
    audit.apply(ObservabilitySettings(audit_log_enabled=False, audit_success_log_enabled=True))
    off = await world.claim("k")
    assert (await world.say("complete", {**off, "attempt": 5})).status_code == 409
    await world.settled()
    assert [(e["event"], e["task_id"]) for e in await world.audit()] == [
        ("claim_acquired", on["task_id"])
    ]


async def test_a_restart_tells_nothing_twice_and_a_rebuild_reads_it_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as (instance, client):
        world = World(instance, client)
        await world.submit("p", task("t", "k"), task("u", "k"))
        await world.client.post("/v1/plans/p/pause", json={})
        nats_client = await nats.connect(instance.nats_url)
        await nats_client.jetstream().publish("plans.p.u", b"junk")
        await nats_client.close()
        await world.entry("bad_event")
        await world.settled()
        before = await world.told()
        assert len(before) == 2
        assert bad_events(world) == 1
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / "data" / f"readmodels.sqlite{suffix}").unlink(missing_ok=True)
    async with serving(tmp_path) as (instance, client):
        world = World(instance, client)
        await world.settled()
        assert await world.told() == before
        counted = bad_events(world)
        assert counted == 0, "a log that is read again counts nothing a second time"


async def test_two_instances_tell_one_fact_once(
    tmp_path: Path, private_nats: PrivateServer
) -> None:
    url = {"nats__url": private_nats.url}
    async with (
        serving(tmp_path / "a", **url) as (instance, client),
        serving(tmp_path / "b", **url) as (other, other_client),
    ):
        world, beside = World(instance, client), World(other, other_client)
        await world.submit("p", task("t", "k"), task("u", "k"))
        nats_client = await nats.connect(private_nats.url)
        await nats_client.jetstream().publish("plans.p.u", b"junk")
        await nats_client.close()
        await world.client.post("/v1/plans/p/pause", json={})
        for each in (world, beside):
            await each.entry("operator_action")
            await each.entry("bad_event")
        await world.settled()
        await beside.settled()
        told = await world.told()
        assert len(told) == 2
        assert told == await beside.told()


# -- what can go wrong with the trail ---------------------------------------------------------


async def test_junk_in_the_trail_is_counted_and_stepped_over(world: World) -> None:
    client = await nats.connect(world.instance.nats_url)
    no_date = b'{"at":1e300,"event":"x","class":"always"}'
    no_class = b'{"at":1,"event":"x","class":"no such"}'
    for junk in (b"junk", b"[]", b"{}", no_class, no_date, b"\xff"):
        await client.jetstream().publish("audit.x.~.~", junk)
    await client.close()
    await world.submit("p", task("t", "k"))
    await world.client.post("/v1/plans/p/pause", json={})
    await world.entry("operator_action")
    assert len(await world.audit()) == 1
    assert bad_events(world) == 6


async def test_a_trail_that_was_deleted_is_made_anew_and_starts_the_rows_anew(
    world_beside: World,
) -> None:
    await world_beside.submit("p", task("t", "k"))
    await world_beside.client.post("/v1/plans/p/pause", json={})
    await world_beside.entry("operator_action")
    client = await nats.connect(world_beside.instance.nats_url)
    await client.jetstream().delete_stream("AUDIT")
    await client.close()
    await world_beside.client.post("/v1/plans/p/resume", json={})
    async with asyncio.timeout(VISIBLE_S):
        while [e["actual"]["action"] for e in await world_beside.audit()] != ["resume"]:
            await asyncio.sleep(0.05)


async def test_rows_follow_the_stream_and_own_entries_are_not_read_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.core.audit.apply(EVERYTHING)
    trail = world.core.log.trail  # type: ignore[attr-defined]
    reads: list[int] = []

    async def counted(after: int, limit: int, read: Any = trail.read) -> Any:
        reads.append(after)
        return await read(after, limit)

    monkeypatch.setattr(trail, "read", counted)
    names = [f"t{n}" for n in range(30)]
    await world.submit("p", *(task(name, "k") for name in names))
    for _ in names[:6]:
        await world.claim("k")
        await world.settled()
    assert len(reads) < 3, "now and then the tail sees the stream grow before the writer's answer"
    reads.clear()

    async def by_hand() -> None:
        client = await nats.connect(world.instance.nats_url)
        for n in range(100):
            entry = {"at": n, "event": "x", "class": "always", "detail": "by hand"}
            await client.jetstream().publish("audit.x.~.~", json.dumps(entry).encode())
        await client.close()

    async def by_this_instance() -> None:
        for _ in names[6:]:
            await world.say("start", await world.claim("k"))

    await asyncio.gather(by_hand(), by_this_instance())
    await world.settled()
    assert reads
    stored = await trail.read(0, 1_000)
    kept = await world.core.database.read(
        "SELECT sequence, id, entry FROM audit ORDER BY sequence", (), lambda _, found: found
    )
    assert [(m.sequence, m.id or None, m.payload) for m in stored] == kept
    found = Counter(msgspec.json.decode(entry)["event"] for _, _, entry in kept)
    here = {"x": 100, "claim_acquired": 30, "execution_started": 24}
    assert {event: found[event] for event in here} == here, "a busy machine may add its own"


async def test_what_the_stream_has_forgotten_leaves_the_rows(world_beside: World) -> None:
    await world_beside.submit("p", task("t", "k"))
    await world_beside.client.post("/v1/plans/p/pause", json={})
    await world_beside.client.post("/v1/plans/p/resume", json={})
    await world_beside.settled()
    assert len(await world_beside.audit()) == 2
    client = await nats.connect(world_beside.instance.nats_url)
    await client.jetstream().purge_stream("AUDIT", keep=1)
    await client.close()
    await AuditTail(world_beside.core.log.trail, world_beside.core.database, print).trim()  # type: ignore[attr-defined]
    assert [e["actual"]["action"] for e in await world_beside.audit()] == ["resume"]
