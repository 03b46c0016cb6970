"""Retention goes from stage to stage: what a crash left half done is finished, never doubled."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from projections.log_identity import begins_late
from projections.read_models import forgetting
from service.app import Instance
from service.archive.days import Closing, files_of, read, verify
from service.daemons.removals import RemovalLimits
from service.daemons.retention import Retention, RetentionLimits
from service.runtime.nats_server.credentials import user_url
from streams.jetstream.access import URL_ALONE
from streams.jetstream.forgetting import Purger
from streams.jetstream.log import JetStreamLog
from streams.jetstream.permissions import RETENTION, SERVICE
from streams.log import LogUnavailable
from streams.plan.events import (
    Cancelled,
    Claimed,
    Completed,
    Finished,
    Raw,
    Submitted,
    TaskSpec,
)
from tests.appending import append
from tests.integration.http_world import serving

# The log's clock is known from what has come from it: on a busy machine, late by as much as that.
LATE_S = 60.0
SOON = RemovalLimits(wait_s=-LATE_S)
AT_ONCE = RetentionLimits(plans=2, looked_at=3, removal=RemovalLimits(together=2, wait_s=-LATE_S))
FREE_AT_ONCE = RetentionLimits(removal=RemovalLimits(wait_s=-LATE_S, forgotten_s=-LATE_S))


class Crash(Exception):
    """Ends the retention in the middle of something."""


class World:
    """An instance that forgets nothing by itself, and retentions of its log."""

    def __init__(self, instance: Instance, client: httpx.AsyncClient) -> None:
        self.core = instance.core
        self.client = client
        self.settings = instance.settings
        self.address = instance.shown_nats_url
        assert isinstance(self.core.log, JetStreamLog)
        self.log = self.core.log
        self._purgers: list[Purger] = []

    async def purger(self, user: str = RETENTION) -> Purger:
        url = user_url(self.settings.data_dir / "nats", self.address, user)
        self._purgers.append(await Purger.open(url, timeout_s=20, access=URL_ALONE))
        return self._purgers[-1]

    async def close(self) -> None:
        """Close what the retentions have opened: a client without a server tries for ever.

        nats-py may lose the one cancellation with which a loop ends its tasks.
        """
        for each in self._purgers:
            await each.close()

    def retention(self, **changed: Any) -> Retention:
        options: dict[str, Any] = {
            "connect": self.purger,
            "note": self.log.note_forgotten,
            "keep_s": -LATE_S,
            "archive_dir": None,
            "limits": AT_ONCE,
            **changed,
        }
        return Retention(self.core, **options)

    async def run(self, *plans: str) -> None:
        """Submit plans and wait for their end."""
        for plan_id in plans:
            plan = {"id": plan_id, "tasks": [{"id": "a", "kind": "echo"}]}
            assert (await self.client.post("/v1/plans", json=plan)).status_code == 201
        async with asyncio.timeout(20):
            for plan_id in plans:
                while (await self.client.get(f"/v1/plans/{plan_id}")).json()["finished_at"] is None:
                    await asyncio.sleep(0.01)

    async def messages(self, plan_id: str) -> int:
        return len(await self.log.messages(plan_id, 0, 100))

    async def status(self, plan_id: str) -> int:
        return (await self.client.get(f"/v1/plans/{plan_id}")).status_code


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path) as (instance, client):
        world = World(instance, client)
        yield world
        await world.close()


async def test_a_purge_that_a_crash_prevented_is_done_later(world: World) -> None:
    await world.run("p", "q", "r")

    async def crash(_: int) -> None:
        raise Crash

    with pytest.raises(Crash):
        await world.retention(note=crash).turn()
    gone = [each for each in ("p", "q", "r") if await world.status(each) == 404]
    assert gone == ["p", "q"]  # a round
    assert await world.messages("p") > 1
    assert (await world.log.state()).forgotten == 0

    await world.retention().turn()

    assert [await world.messages(each) for each in ("p", "q", "r")] == [1, 1, 1]
    state = await world.log.state()
    assert begins_late(state) is None
    assert 1 < state.forgotten < state.head
    assert await forgetting.to_remove(world.core.database, 10) == []
    assert world.core.conditions.retention_trouble is None


async def test_the_logs_beginning_is_removed_at_once_and_all_goes_on(world: World) -> None:
    for plan_id in ("p", "q", "r"):
        await world.run(plan_id)
    end = (await world.log.state()).head
    limits = RetentionLimits(removal=RemovalLimits(worth=1, wait_s=-LATE_S))

    await world.retention(limits=limits).turn()

    state = await world.log.state()
    assert (state.first, state.forgotten) == (end + 1, end)
    assert begins_late(state) is None
    assert [await world.messages(each) for each in ("p", "q", "r")] == [1, 1, 1]
    purger = await world.purger()
    for below in (0, 1):  # to the server that would mean everything
        assert await purger.remove_beginning(below) == 0
    assert (await world.log.state()).first == end + 1
    await world.run("next")
    assert await world.status("next") == 200
    assert world.core.conditions.log_missing is None


async def test_the_fact_leaves_the_log_too_when_the_id_is_free(world: World) -> None:
    await world.run("p")
    await world.retention().turn()
    assert await world.messages("p") == 1

    await world.retention(limits=FREE_AT_ONCE).turn()

    # The log's last message stays: an empty stream would have no beginning.
    assert await world.messages("p") == 1
    await world.run("next")
    before = (await world.log.state()).head
    await world.retention(limits=FREE_AT_ONCE).turn()
    assert await world.messages("p") == 0
    state = await world.log.state()
    assert (state.forgotten <= before, begins_late(state)) == (True, None)
    (last,) = await forgetting.to_free(world.core.database, world.core.now(), 10)
    assert last.tombstone.plan_id == "next"
    await world.run("p")
    assert await world.status("p") == 200


async def test_two_retentions_side_by_side_do_the_work_once(world: World) -> None:
    plans = [f"p{number}" for number in range(8)]
    await world.run(*plans)
    one, two = world.retention(), world.retention()
    await asyncio.gather(one.turn(), two.turn())
    await one.turn()
    assert [await world.messages(each) for each in plans] == [1] * 8
    assert world.core.conditions.retention_trouble is None


async def test_without_a_user_that_may_purge_nothing_is_forgotten(
    world: World, tmp_path: Path
) -> None:
    await world.run("p")
    head = (await world.log.state()).head
    for connect, why in (
        (None, "nats.retention_creds_file or nats.retention_url"),
        (lambda: world.purger(SERVICE), "STREAM.PURGE.PLANS"),
    ):
        await world.retention(connect=connect).turn()
        assert why in (world.core.conditions.retention_trouble or "")
        report = (await world.client.get("/v1/ops/doctor")).json()
        assert "RetentionBehind" in [each["code"] for each in report["findings"]]
    (tmp_path / "file").touch()
    await world.retention(archive_dir=tmp_path / "file").turn()
    assert "file" in (world.core.conditions.retention_trouble or "")
    assert (await world.log.state()).head == head

    await world.retention().turn()
    assert world.core.conditions.retention_trouble is None
    assert await world.status("p") == 404


async def test_a_plan_that_an_operator_retries_meanwhile_is_not_forgotten(
    world: World, tmp_path: Path
) -> None:
    plan = {"id": "p", "tasks": [{"id": "a", "kind": "mine", "max_retries": 0}]}
    await world.client.post("/v1/plans", json=plan)
    owner = {"owner": "w", "limit": 1, "kinds": ["mine"], "wait_s": 5}
    (claim,) = (await world.client.post("/v1/claims", json=owner)).json()["claims"]
    whose = {"owner": "w", "attempt": claim["attempt"], "error_type": "boom"}
    await world.client.post("/v1/plans/p/tasks/a/fail", json=whose)
    async with asyncio.timeout(20):
        while (await world.client.get("/v1/plans/p")).json()["finished_at"] is None:
            await asyncio.sleep(0.01)
    rows = await forgetting.ended_before(world.core.database, world.core.now(), 0, 10)
    (old,) = (each.plan for each in rows if each.plan.plan_id == "p")
    await world.client.post("/v1/plans/p/tasks/a/retry", json={})

    retention = world.retention(archive_dir=tmp_path / "archive")
    await retention.turn()
    assert await retention._forget([old]) == 0  # noqa: SLF001 - as read before the retry

    assert await world.status("p") == 200
    assert (await world.client.get("/v1/plans/p")).json()["status"] != "FAILED"


async def test_a_log_that_does_not_answer_is_reported_and_tried_again(world: World) -> None:
    await world.run("p")

    async def away(_: int) -> None:
        raise LogUnavailable("the log does not answer")

    await world.retention(note=away).turn()
    assert world.core.conditions.retention_trouble == "the log does not answer"
    await world.retention().turn()
    assert world.core.conditions.retention_trouble is None
    assert await world.messages("p") == 1


async def ended(log: JetStreamLog, plan_id: str, tasks: int, done: int) -> None:
    """Append all facts of a plan of which ``done`` tasks completed before it was cancelled."""
    names = [f"t{number}" for number in range(tasks)]
    specs = tuple(TaskSpec(id=name, kind="outside") for name in names)
    first = await append(log, plan_id, None, 0, Submitted(tasks=specs))
    claimed = Claimed(owner="w", attempt=1, lease_s=600, started=True)
    completed = Completed(owner="w", attempt=1, output=Raw(b"1"))
    lives = (append(log, plan_id, name, 0, claimed, completed) for name in names[:done])
    await asyncio.gather(*lives)
    await append(log, plan_id, None, first, Cancelled(), Finished(status="CANCELLED"))


@pytest.mark.timeout(120)
async def test_a_plan_of_ten_thousand_tasks_is_archived_and_forgotten_and_its_space_is_free(
    world: World, tmp_path: Path
) -> None:
    before = await world.log.state()
    await ended(world.log, "wide", 10_000, 1_500)
    full = await world.log.state()
    await world.core.projector.flushed(full.head, 60)
    assert await world.status("wide") == 200
    folder = tmp_path / "archive"

    await world.retention(archive_dir=folder).turn()

    assert world.core.conditions.retention_trouble is None
    assert await world.messages("wide") == 1
    lines = [line for path in files_of(folder) for line in read(path)]
    (closing,) = (line for line in lines if isinstance(line, Closing))
    assert (closing.archived, closing.facts) == ("wide", full.head - before.head)
    assert await asyncio.to_thread(verify, folder) == 1
    left = await world.log.state()
    assert left.size_bytes - before.size_bytes < 0.05 * (full.size_bytes - before.size_bytes)
    assert (await world.client.get("/v1/tasks?plan_id=wide")).json()["items"] == []


@pytest.mark.parametrize("bound", [{"walk_messages": 0}, {"walk_bytes": 0}, {}])
async def test_a_plan_that_no_walk_reaches_is_archived_alone(
    world: World, tmp_path: Path, bound: dict[str, int]
) -> None:
    plans = [f"p{number}" for number in range(6)]
    await world.run(*plans)
    facts = {each: await world.messages(each) for each in plans}
    folder = tmp_path / "archive"

    await world.retention(
        archive_dir=folder, limits=RetentionLimits(plans=3, removal=SOON, **bound)
    ).turn()

    assert await asyncio.to_thread(verify, folder) == len(plans)
    lines = [line for path in files_of(folder) for line in read(path)]
    assert {line.archived: line.facts for line in lines if isinstance(line, Closing)} == facts
    assert [await world.messages(each) for each in plans] == [1] * len(plans)
