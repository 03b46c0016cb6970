"""A snapshot is used where it stands for the fold of this log; if not, the log is folded."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from projections.integrity.verify import compare
from projections.read_models.copies import copy_of
from projections.read_models.sqlite_file import DatabaseUnavailable
from service.snapshots.fetching import FetchLimits, HowFetched
from service.snapshots.taking import take
from streams.log import Draft
from streams.plan.events import Forgotten
from streams.snapshot_store import KeptSnapshot, SnapshotUnavailable
from tests.integration.snapshot_world import AT, SMALL, SnapshotWorld, plans_at, submit
from tests.memory_log import MemoryLog

PLANS = {f"p{n}" for n in range(8)}
Spoil = Callable[[SnapshotWorld], Awaitable[MemoryLog | None]]


@pytest.fixture
async def world(tmp_path: Path) -> SnapshotWorld:
    world = SnapshotWorld(tmp_path)
    await world.fold()
    return world


async def test_what_is_fetched_are_the_rows_of_the_other_instance_and_the_log_goes_on(
    world: SnapshotWorld,
) -> None:
    taken = await world.take()
    assert (taken.sequence, taken.at, world.left()) == (8, AT, ["x.sqlite"])
    assert await world.fetch()
    assert world.left() == ["x.sqlite", "x.sqlite"]
    assert compare(world.live, world.empty, is_gone=lambda _: False).differences == []
    await submit(world.log, "later")
    assert await plans_at(world.log, world.empty) == PLANS | {"later"}
    assert world.store.opened == world.store.closed


async def test_read_models_that_are_there_and_logs_that_are_short_need_no_snapshot(
    world: SnapshotWorld,
) -> None:
    await world.take()
    assert not await world.fetch(limits=FetchLimits(worth_facts=9))
    world.empty.write_bytes(b"mine")
    world.empty.with_name("x.sqlite.fetched").write_bytes(b"half, of a process that was killed")
    assert not await world.fetch()
    assert world.left() == ["x.sqlite", "x.sqlite"]
    assert world.empty.read_bytes() == b"mine"
    assert world.store.opened == 0


async def described(world: SnapshotWorld, **changed: Any) -> None:
    """Let the newest one say something else."""
    kept = await world.store.newest()
    assert kept is not None
    world.store.finish(replace(kept, snapshot=replace(kept.snapshot, **changed)))


async def none(world: SnapshotWorld) -> None:
    world.store.finish(None)  # type: ignore[arg-type]  # as before the first one


async def schema(world: SnapshotWorld) -> None:
    await described(world, schema=8)


async def epoch(world: SnapshotWorld) -> None:
    await described(world, epoch="PLANS@before")


async def shorter_log(_: SnapshotWorld) -> MemoryLog:
    """An older backup of the log."""
    log = MemoryLog()
    await submit(log, "p0", "p1")
    return log


async def other_history(_: SnapshotWorld) -> MemoryLog:
    """An older backup that has grown since."""
    log = MemoryLog()
    await submit(log, "p0", *(f"new-{n}" for n in range(9)))
    return log


async def forgotten(world: SnapshotWorld) -> None:
    world.log.forgotten = 9


async def late_log(world: SnapshotWorld) -> None:
    world.log.purge(lambda sequence: sequence == 1)


async def fact_is_gone(world: SnapshotWorld) -> None:
    await submit(world.log, "later")
    world.log.purge(lambda sequence: sequence == 8)


async def damaged(world: SnapshotWorld) -> None:
    place, (subject, piece) = list(world.store.messages.items())[-3]
    world.store.messages[place] = (subject, piece[:-1] + b"\0")


async def swapped(world: SnapshotWorld) -> None:
    first, second = list(world.store.messages)[1:3]
    found = world.store.messages
    found[first], found[second] = found[second], found[first]


async def half(world: SnapshotWorld) -> None:
    del world.store.messages[list(world.store.messages)[-3]]


async def too_long(world: SnapshotWorld) -> None:
    await described(world, bytes=5)


async def mislabelled(world: SnapshotWorld) -> None:
    await described(world, sequence=7)


async def no_server(world: SnapshotWorld) -> None:
    world.store.fault = "no NATS server"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (none, "there is none"),
        (schema, "it has schema 8"),
        (epoch, "it is of the log PLANS@before"),
        (shorter_log, "it has reached 8, and the log ends at 2"),
        (other_history, "the log does not have its fact at sequence 8"),
        (forgotten, "were forgotten meanwhile"),
        (late_log, "the log begins at sequence 2"),
        (fact_is_gone, "the log does not have its fact at sequence 8"),
        (damaged, ""),
        (swapped, "not the file that was written"),
        (half, "is gone"),
        (too_long, "not the file that was written"),
        (mislabelled, "its rows are of another sequence"),
        (no_server, "no NATS server"),
    ],
)
async def test_one_that_does_not_fit_is_left_and_the_reason_is_one_line(
    world: SnapshotWorld, spoil: Spoil, reason: str
) -> None:
    await world.take()
    log = await spoil(world)
    with capture_logs() as lines:
        assert not await world.fetch(log)
    assert world.left() == ["x.sqlite"]
    (line,) = [each for each in lines if each["event"] == "snapshot_not_used"]
    assert reason in line["reason"]
    assert world.store.opened == world.store.closed


async def test_the_rows_of_plans_that_were_forgotten_later_leave_with_their_facts(
    world: SnapshotWorld,
) -> None:
    await world.take()
    await world.log.append(Draft(plan_id="p3", task_id=None, expected=4, events=(Forgotten(),)))
    world.log.forgotten = 8  # facts of p3 up to there may be missing, and the snapshot has them
    world.log.purge(lambda sequence: sequence == 4)
    assert await world.fetch()
    assert await plans_at(world.log, world.empty) == PLANS - {"p3"}


async def test_one_whose_fetch_takes_longer_than_the_fold_is_given_up(world: SnapshotWorld) -> None:
    await world.take()
    slow = FetchLimits(worth_facts=1, judged_s=0.0, show_s=0.0, folded_per_s=1e12)
    with capture_logs() as lines:
        assert not await world.fetch(limits=slow)
    assert "s more, the fold 0 s" in lines[-1]["reason"]
    assert world.left() == ["x.sqlite"]


async def test_the_fetch_shows_how_far_it_is_and_how_long_it_will_take(
    world: SnapshotWorld,
) -> None:
    taken = await world.take()
    assert await world.fetch(limits=replace(SMALL, show_s=0.0))
    assert [each.total_bytes for each in world.told] == [taken.bytes] * len(world.told)
    done = [each.done_bytes for each in world.told]
    assert (done, done[-1]) == (sorted(done), taken.bytes)
    far = HowFetched(done_bytes=100_000_000, total_bytes=400_000_000, took_s=2.0)
    assert (far.percent, far.left_s) == (25.0, 6.0)
    assert str(far).startswith("100 of 400 MB")
    assert HowFetched(done_bytes=0, total_bytes=1, took_s=1.0).left_s is None


async def stopped_at(world: SnapshotWorld, pieces: int, work: Callable[[], Awaitable[Any]]) -> None:
    """Do ``work`` until so many pieces are written or read; then it is cancelled."""
    left = pieces
    task = asyncio.ensure_future(work())

    def count() -> None:
        nonlocal left
        left -= 1
        if not left:
            task.cancel()

    world.store.on_piece = count
    with pytest.raises(asyncio.CancelledError):
        await task
    world.store.on_piece = lambda: None


async def test_a_fetch_that_ends_in_the_middle_leaves_nothing_and_can_be_done_again(
    world: SnapshotWorld,
) -> None:
    await world.take()
    await stopped_at(world, 5, world.fetch)
    assert world.left() == ["x.sqlite"]
    killed = world.empty.with_name("x.sqlite.fetched")
    killed.write_bytes(b"half")
    assert await world.fetch()
    assert not killed.exists()


async def test_one_that_ends_in_the_middle_leaves_the_one_before_it(world: SnapshotWorld) -> None:
    await world.take()
    before = await world.store.newest()
    await submit(world.log, "later")
    await stopped_at(world, 5, world.take)
    assert (await world.store.newest(), world.left()) == (before, ["x.sqlite"])
    assert await world.store.begin() is None, "its process may be alive"
    world.store.alive_s = 0.0
    world.copy.write_bytes(b"half")  # as a process leaves it that is killed
    await world.take()
    assert await world.store.newest() != before
    assert await world.fetch()


async def test_another_process_that_writes_ends_this_one(world: SnapshotWorld) -> None:
    writing = await world.store.begin()
    assert writing is not None
    world.store.store("snapshots.a", b"", rolls_up=True)
    with pytest.raises(SnapshotUnavailable, match="another process"):
        await take(world.live, world.copy, writing, AT)
    assert world.left() == ["x.sqlite"]


class _Gone:
    """A snapshot in writing whose store is gone; it may be renewed so many times."""

    piece_bytes = 4096

    def __init__(self) -> None:
        self.renewed = 0

    async def renew(self) -> None:
        self.renewed += 1
        raise SnapshotUnavailable("gone")

    async def add(self, piece: bytes) -> None:
        raise AssertionError(piece)

    async def finish(self, snapshot: object) -> None:
        raise AssertionError(snapshot)


async def test_the_copy_of_one_that_cannot_be_kept_is_stopped(tmp_path: Path) -> None:
    world = SnapshotWorld(tmp_path)
    await submit(world.log, *(f"p{n}" for n in range(5_000)))
    assert len(await plans_at(world.log, world.live)) == 5_000
    gone = _Gone()
    with pytest.raises(SnapshotUnavailable, match="gone"):
        await take(world.live, world.copy, gone, AT, renew_s=0.0)
    assert (gone.renewed, world.left()) == (1, ["x.sqlite"])
    with pytest.raises(DatabaseUnavailable, match="interrupted"):
        await asyncio.to_thread(copy_of, world.live, world.copy, lambda: True)


def test_what_is_kept_of_a_snapshot_is_readable_by_later_versions() -> None:
    """An instance meets what one of an older or newer version has kept."""
    stored = (
        b'{"snapshot":{"epoch":"PLANS@1","schema":9,"sequence":5,"witness":[4,"id",1.5],"bytes":3,'
        b'"sha256":"00","at":2.5,"took_s":0.5,"new":1},"subject":"snapshots.a","first":2,"pieces":3}'
    )
    kept = msgspec.json.decode(stored, type=KeptSnapshot)
    assert (kept.snapshot.witness, kept.first) == ((4, "id", 1.5), 2)
