"""Where an audited entry is shown, once, and what can go wrong with the trail under it."""

import asyncio
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest

from projections.read_models.audit_tail import AuditTail
from service.settings.config import ObservabilitySettings
from tests.conftest import PrivateServer
from tests.integration.audit.world import VISIBLE_S, World, bad_events, task
from tests.integration.http_world import serving

EVERYTHING = ObservabilitySettings(audit_success_log_enabled=True)


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
