"""Instances on one log take snapshots in turns and start from them; trouble stops nothing else."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from projections.read_models.restore import SCHEMA
from service.app import Instance
from service.daemons.snapshots import SnapshotPace, Snapshots
from service.runtime.data_folder import READ_MODELS
from service.settings.loading import load_settings
from service.snapshots.fetching import FetchLimits, fetch_read_models
from service.snapshots.store import store_of
from service.snapshots.taking import take
from streams.jetstream.log import JetStreamLog
from streams.jetstream.snapshot_stream import SnapshotPatience, SnapshotStream
from streams.snapshot_store import KeptSnapshot, ReadModelSnapshot, SnapshotUnavailable
from tests.appending import append
from tests.conftest import PrivateServer
from tests.faults.service_process import run_holdfast
from tests.integration.http_world import serving
from tests.integration.snapshot_world import PLAN
from tests.integration.test_nats_access import TOP_LEVEL, Start, start_server, with_passwords
from tests.integration.test_retention_stages import FREE_AT_ONCE, World
from tests.memory_snapshots import MemorySnapshots
from tests.waiting import answered, eventually

__all__ = ["start_server"]
EVERY = 20
AT_ONCE = SnapshotPace(share=1e9, retry_s=0.0)


async def plans(url: str, names: list[str]) -> None:
    """Append plans, as others do that have used the log before."""
    log = await JetStreamLog.connect(url)
    for name in names:
        await append(log, name, None, 0, PLAN)
    await log.close()


async def newest(url: str) -> KeptSnapshot | None:
    store = await SnapshotStream.open(url, replicas=1, max_bytes=1 << 30, timeout_s=20)
    try:
        return await store.newest()
    finally:
        await store.close()


async def shown(client: httpx.AsyncClient) -> set[str]:
    page = (await client.get("/v1/plans?limit=200")).json()
    return {each["plan_id"] for each in page["items"]}


async def by_hand(url: str, subject: str) -> None:
    client = await nats.connect(url)
    await client.request(subject, b"{", timeout=20)
    await client.close()


async def has_counted(client: httpx.AsyncClient, bad_facts: int) -> bool:
    text = (await client.get("/metrics")).text
    return f"agent_projection_bad_event_total {bad_facts}.0" in text


async def ended(client: httpx.AsyncClient, plan_id: str) -> bool:
    found = await client.get(f"/v1/plans/{plan_id}")
    return found.status_code == 200 and found.json()["finished_at"] is not None


@pytest.mark.timeout(120)
async def test_an_instance_with_an_empty_folder_starts_from_what_another_has_taken(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    url = private_nats.url
    old, later = [f"old-{n}" for n in range(3 * EVERY)], [f"later-{n}" for n in range(5)]
    await plans(url, old)
    flags: dict[str, Any] = {"nats__url": url, "snapshots__every_facts": EVERY}
    async with serving(tmp_path / "a", **flags) as (_, one):
        kept = await answered(lambda: newest(url), "a snapshot is taken")
        assert kept is not None
        assert kept.snapshot.sequence == len(old)
        await plans(url, later)
        await by_hand(url, "plans.unreadable")
        await answered(lambda: has_counted(one, 1), "the first one has met what is no fact")
        half = tmp_path / "b" / "data" / f"{READ_MODELS}.snapshot"
        half.parent.mkdir(mode=0o700, parents=True)
        half.write_bytes(b"of a process that was killed")
        with capture_logs() as lines:
            async with serving(tmp_path / "b", **flags) as (second, other):
                await eventually(lambda: not half.exists())
                events = [each["event"] for each in lines]
                assert "snapshot_fetched" in events
                assert "rebuilding_read_models" not in events
                assert second.core.board.sequence == len(old) + len(later) + 1
                assert await has_counted(other, 0), "what came before the start is no news"
                assert await shown(other) == await shown(one) == {*old, *later}
                plan = {"id": "new", "tasks": [{"id": "t", "kind": "echo"}]}
                assert (await other.post("/v1/plans", json=plan)).status_code == 201
                await answered(lambda: ended(one, "new"), "the first one sees what came after")
        data = str(tmp_path / "b" / "data")
        code, said = await asyncio.to_thread(
            lambda: run_holdfast("rebuild", "--verify", data_dir=data, nats__url=url)
        )
        assert (code, "equal" in said) == (0, True), said


@pytest.mark.timeout(120)
async def test_a_snapshot_that_cannot_be_used_costs_a_fold_and_nothing_else(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    url = private_nats.url
    names = [f"p{n}" for n in range(2 * EVERY)]
    await plans(url, names)
    store = await SnapshotStream.open(url, replicas=1, max_bytes=1 << 30, timeout_s=20)
    writing = await store.begin()
    assert writing is not None
    await writing.add(b"no piece of a file")
    async with serving(tmp_path / "a", nats__url=url, snapshots__every_facts=0) as (first, _):
        state = await first.core.log.state()
        witness = await eventually(lambda: first.core.projector.witness, "all is in the rows")
        assert witness is not None
    await writing.finish(
        ReadModelSnapshot(
            epoch=state.epoch,
            schema=SCHEMA.version,
            sequence=state.head,
            witness=(witness.sequence, witness.event_id, witness.at),
            bytes=100,
            sha256="00",
            at=0.0,
            took_s=0.0,
        )
    )
    await store.close()
    with capture_logs() as lines:
        flags: dict[str, Any] = {"nats__url": url, "snapshots__every_facts": EVERY}
        async with serving(tmp_path / "b", **flags) as (_, client):
            assert await shown(client) == set(names)
    assert "snapshot_not_used" in [each["event"] for each in lines]


# -- when one is taken --------------------------------------------------------------------------


class Taking:
    """An instance without snapshots of its own, and one in memory that is taken from it."""

    def __init__(self, instance: Instance, client: httpx.AsyncClient) -> None:
        self.core = instance.core
        self.client = client
        self.store = MemorySnapshots(clock=self.core.now)
        self.conditions = self.core.conditions

    def snapshots(self, pace: SnapshotPace = AT_ONCE) -> Snapshots:
        return Snapshots(self.core, self.store.open, every_facts=EVERY, pace=pace)

    async def submit(self, *names: str) -> None:
        for name in names:
            await append(self.core.log, name, None, 0, PLAN)
        head = (await self.core.log.state()).head
        await self.core.projector.folded(head)
        await self.core.projector.flushed(head, 20)

    async def kept(self) -> int:
        """Up to which sequence the newest one reaches; 0: there is none."""
        kept = await self.store.newest()
        return kept.snapshot.sequence if kept else 0

    async def says(self, **changed: Any) -> None:
        """Let the newest one say something else of itself."""
        kept = await self.store.newest()
        assert kept is not None
        self.store.finish(replace(kept, snapshot=replace(kept.snapshot, **changed)))


@pytest.fixture
async def taking(tmp_path: Path) -> AsyncIterator[Taking]:
    async with serving(tmp_path) as (instance, client):
        yield Taking(instance, client)


async def test_one_is_taken_when_enough_facts_have_come_since_the_newest(taking: Taking) -> None:
    snapshots, other = taking.snapshots(), taking.snapshots()
    await taking.submit(*(f"a{n}" for n in range(EVERY - 1)))
    await snapshots.turn()
    assert taking.store.opened == 0, "nothing is asked before one can be due"
    await taking.submit("b")
    await snapshots.turn()
    assert await taking.kept() == EVERY
    await other.turn()
    await other.turn()
    await snapshots.turn()
    assert (await taking.kept(), taking.store.opened) == (EVERY, 3), "each has looked once more"
    await taking.submit(*(f"c{n}" for n in range(EVERY)))
    await other.turn()
    assert await taking.kept() == 2 * EVERY
    assert taking.store.opened == taking.store.closed


async def test_taking_them_takes_a_share_of_the_time(taking: Taking) -> None:
    snapshots = taking.snapshots()
    await taking.submit(*(f"a{n}" for n in range(EVERY)))
    await snapshots.turn()
    await taking.says(took_s=60.0)
    await taking.submit(*(f"b{n}" for n in range(EVERY)))
    await taking.snapshots(SnapshotPace(share=0.1)).turn()
    assert await taking.kept() == EVERY, "ten minutes have not gone by"
    await taking.says(at=taking.core.now() - 601)
    await taking.snapshots(SnapshotPace(share=0.1)).turn()
    assert await taking.kept() == 2 * EVERY


@pytest.mark.parametrize(
    ("changed", "is_replaced"),
    [
        ({"schema": SCHEMA.version - 1}, True),
        ({"schema": SCHEMA.version + 1}, False),
        ({"epoch": "PLANS@before"}, True),
        ({"sequence": 10**9}, True),
        ({"witness": (1, "other", 0.0)}, True),
        ({}, False),
    ],
)
async def test_one_of_another_log_or_an_older_version_is_replaced(
    taking: Taking,
    changed: dict[str, Any],
    is_replaced: bool,  # noqa: FBT001 - of the table above
) -> None:
    await taking.submit(*(f"a{n}" for n in range(EVERY)))
    await taking.snapshots().turn()
    await taking.says(**changed)
    before = await taking.store.newest()
    await taking.snapshots().turn()
    assert (await taking.store.newest() != before) == is_replaced


async def test_while_another_instance_is_at_it_this_one_waits_and_follows_when_it_has_ended(
    taking: Taking,
) -> None:
    await taking.submit(*(f"a{n}" for n in range(EVERY)))
    assert await taking.store.begin() is not None
    waiting = taking.snapshots(SnapshotPace(busy_s=0.0))
    await waiting.turn()
    assert (await taking.kept(), taking.conditions.snapshots_trouble) == (0, None)
    taking.store.alive_s = 0.0
    await waiting.turn()
    assert await taking.kept() == EVERY


async def test_what_stops_it_is_a_warning_of_readiness_until_it_goes_on(taking: Taking) -> None:
    await taking.submit(*(f"a{n}" for n in range(EVERY)))
    snapshots = taking.snapshots()
    taking.store.fault = "no NATS server"
    with capture_logs() as lines:
        for _ in range(3):
            await snapshots.turn()
    assert [each["event"] for each in lines].count("snapshots_stopped") == 1
    ready = await taking.client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["warnings"] == ["snapshots"]
    assert "no NATS server" in ready.text
    taking.store.fault = None
    await snapshots.turn()
    assert await taking.kept() == EVERY
    assert (await taking.client.get("/readyz")).json()["warnings"] == []


async def test_after_a_fault_it_waits_before_it_tries_again(taking: Taking) -> None:
    await taking.submit(*(f"a{n}" for n in range(EVERY)))
    snapshots = taking.snapshots(SnapshotPace())
    taking.store.max_bytes = 100
    await snapshots.turn()
    assert "snapshots.max_bytes" in (taking.conditions.snapshots_trouble or "")
    taking.store.max_bytes = 1 << 30
    await snapshots.turn()
    assert (await taking.kept(), taking.store.opened) == (0, 1)


async def test_one_is_not_used_once_a_fact_has_left_the_log_that_would_forget_its_rows(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (instance, client):
        world, store = World(instance, client), MemorySnapshots()
        await world.run("first", "p")
        head = (await world.log.state()).head
        await world.core.projector.flushed(head, 20)
        live, empty = world.settings.data_dir / READ_MODELS, tmp_path / "empty.sqlite"
        writing = await store.begin()
        assert writing is not None
        await take(live, tmp_path / "copy.sqlite", writing, world.core.now())

        async def fetched() -> bool:
            limits = FetchLimits(worth_facts=1)
            settled = world.log.settled
            return await fetch_read_models(
                empty, world.log, settled, store.open, lambda _: None, limits
            )

        await world.retention().turn()
        assert await world.messages("p") == 1
        assert await fetched(), "the fact that forgets p is there, and its rows will leave"
        empty.unlink()
        await world.run("later")
        await world.retention(limits=FREE_AT_ONCE).turn()
        assert await world.messages("p") == 0
        assert (await world.log.state()).first > 1
        with capture_logs() as lines:
            assert not await fetched()
        assert "forgotten meanwhile" in lines[-1]["reason"]
        await world.close()


# -- who may --------------------------------------------------------------------------------------


async def test_a_user_that_may_not_write_them_is_told_by_the_server(start_server: Start) -> None:
    page = (TOP_LEVEL / "docs/howto/nats-accounts.md").read_text(encoding="utf-8")
    block = re.search(r"```\n(accounts .*?)```", page, re.DOTALL)
    assert block is not None
    documented = with_passwords(block[1])
    for text, may in ((documented, True), (documented.replace('"snapshots.>", ', ""), False)):
        assert may == (text == documented)
        store = await SnapshotStream.open(
            f"nats://service:one@127.0.0.1:{start_server(text)}",
            replicas=1,
            max_bytes=1 << 24,
            timeout_s=20,
            patience=SnapshotPatience(answer_s=2.0),
        )
        if may:
            assert await store.begin() is not None
        else:
            with pytest.raises(SnapshotUnavailable, match=r"snapshots\.a"):
                await store.begin()
        await store.close()


def test_an_embedded_log_and_zero_facts_have_no_store(tmp_path: Path) -> None:
    def has_store(**flags: Any) -> bool:
        flags = {key.replace("__", "."): value for key, value in flags.items()}
        settings = load_settings(environment={}, directory=tmp_path, flags=flags)
        return store_of(settings) is not None

    url = "nats://127.0.0.1:4222"
    assert has_store(nats__url=url)
    assert not has_store()
    assert not has_store(nats__url=url, snapshots__every_facts=0)
