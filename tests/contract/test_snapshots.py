"""What every store of snapshots promises: whole ones only, one writer, never more than two."""

from collections.abc import AsyncIterator, Awaitable, Callable

import nats
import pytest

from streams.jetstream.access import Credentials
from streams.jetstream.names import Names
from streams.jetstream.snapshot_stream import SnapshotPatience, SnapshotStream
from streams.snapshot_store import (
    KeptSnapshot,
    ReadModelSnapshot,
    SnapshotStore,
    SnapshotUnavailable,
    SnapshotWriting,
)
from tests.conftest import PrivateServer
from tests.memory_snapshots import MemorySnapshots

MOST = 4_000_000
PIECES = [f"{n} ".encode() * 1_000 for n in range(20)]  # more than are read at once
IMPATIENT = SnapshotPatience(alive_s=0.0)

# One process's store; ``impatient``: one that takes every other writer for dead.
Open = Callable[..., Awaitable[SnapshotStore]]


def described(sequence: int) -> ReadModelSnapshot:
    return ReadModelSnapshot(
        epoch="PLANS@now",
        schema=9,
        sequence=sequence,
        witness=(sequence, "id", 1.5),
        bytes=10,
        sha256="00",
        at=2.5,
        took_s=0.5,
    )


@pytest.fixture(params=["memory", "jetstream"])
async def open_store(
    request: pytest.FixtureRequest, start_nats: Callable[[], PrivateServer]
) -> AsyncIterator[Open]:
    opened: list[SnapshotStore] = []
    memory = MemorySnapshots(max_bytes=MOST)
    url = "" if request.param == "memory" else start_nats().url

    async def open_one(*, impatient: bool = False) -> SnapshotStore:
        if not url:
            memory.alive_s = 0.0 if impatient else memory.alive_s
            return memory
        patience = IMPATIENT if impatient else SnapshotPatience()
        opened.append(
            await SnapshotStream.open(
                url, replicas=1, max_bytes=MOST, timeout_s=20, patience=patience
            )
        )
        return opened[-1]

    yield open_one
    for each in opened:
        await each.close()


async def begun(store: SnapshotStore) -> SnapshotWriting:
    writing = await store.begin()
    assert writing is not None
    return writing


async def written(store: SnapshotStore, sequence: int) -> KeptSnapshot:
    writing = await begun(store)
    for piece in PIECES:
        await writing.add(piece)
    await writing.finish(described(sequence))
    newest = await store.newest()
    assert newest is not None
    return newest


async def read(store: SnapshotStore, kept: KeptSnapshot) -> list[bytes]:
    return [piece async for page in store.pieces(kept) for piece in page]


async def test_what_is_whole_is_the_newest_and_is_read_as_it_was_written(open_store: Open) -> None:
    store = await open_store()
    assert await store.newest() is None
    kept = await written(store, 7)
    other = await open_store()
    assert await other.newest() == kept
    assert (kept.snapshot, kept.pieces) == (described(7), len(PIECES))
    assert await read(other, kept) == PIECES


async def test_one_process_writes_at_a_time_and_what_is_half_written_is_never_used(
    open_store: Open,
) -> None:
    store, other = await open_store(), await open_store()
    first = await written(store, 1)
    writing = await begun(store)
    await writing.renew()
    assert await other.begin() is None
    await writing.add(b"half")
    assert await other.begin() is None
    assert await other.newest() == first
    assert await read(other, first) == PIECES


async def test_a_process_that_has_ended_is_followed_by_another_and_can_do_no_harm_later(
    open_store: Open,
) -> None:
    store, other = await open_store(), await open_store(impatient=True)
    late = await begun(store)
    await late.add(b"half")
    kept = await written(other, 2)
    for each in (late.renew, lambda: late.add(b"more"), lambda: late.finish(described(3))):
        with pytest.raises((SnapshotUnavailable, ValueError)):
            await each()
    assert await store.newest() == kept
    assert await read(store, kept) == PIECES


async def test_a_process_that_copies_for_long_shows_that_it_is_at_it(open_store: Open) -> None:
    store = await open_store()
    writing = await begun(store)
    for _ in range(3):
        await writing.renew()
    await writing.add(b"all")
    with pytest.raises(ValueError, match="remove the pieces"):
        await writing.renew()
    await writing.finish(described(1))
    kept = await store.newest()
    assert kept is not None
    assert await read(store, kept) == [b"all"]


async def test_two_are_kept_at_most_and_one_that_is_gone_is_named(open_store: Open) -> None:
    store = await open_store()
    first, second = await written(store, 1), await written(store, 2)
    assert await read(store, first) == PIECES, "who reads it may go on"
    third = await written(store, 3)
    assert [await read(store, each) for each in (second, third)] == [PIECES, PIECES]
    with pytest.raises(SnapshotUnavailable, match=f"sequence {first.first} is gone"):
        await read(store, first)


async def test_one_that_is_larger_than_half_of_the_bound_ends_and_the_setting_is_named(
    open_store: Open,
) -> None:
    store = await open_store()
    kept = await written(store, 1)
    writing = await begun(store)
    for _ in range(8):
        await writing.add(b"x" * (MOST // 16))
    with pytest.raises(SnapshotUnavailable, match=r"snapshots\.max_bytes"):
        await writing.add(b"x")
    assert await store.newest() == kept


# -- JetStream alone ----------------------------------------------------------------------------


async def test_the_stream_is_bounded_and_named_by_the_prefix(private_nats: PrivateServer) -> None:
    access = Credentials(names=Names(prefix="blue"))
    store = await SnapshotStream.open(
        private_nats.url, replicas=1, max_bytes=MOST, timeout_s=20, access=access
    )
    await written(store, 1)
    await store.close()
    client = await nats.connect(private_nats.url)
    info = await client.jetstream().stream_info("blue-SNAPSHOTS")
    await client.close()
    assert (info.config.subjects, info.config.max_bytes) == (["blue.snapshots.>"], MOST)
    assert info.state.messages == len(PIECES) + 2  # the first message of them, and the last


async def test_nothing_is_made_before_the_first_one_is_begun(private_nats: PrivateServer) -> None:
    store = await SnapshotStream.open(private_nats.url, replicas=1, max_bytes=MOST, timeout_s=20)
    assert await store.newest() is None
    client = await nats.connect(private_nats.url)
    assert [each.config.name for each in await client.jetstream().streams_info()] == []
    await client.close()
    await store.close()


async def test_a_server_that_is_gone_is_named(private_nats: PrivateServer) -> None:
    store = await SnapshotStream.open(
        private_nats.url,
        replicas=1,
        max_bytes=MOST,
        timeout_s=20,
        patience=SnapshotPatience(answer_s=0.5),
    )
    writing = await begun(store)
    private_nats.kill()
    with pytest.raises(SnapshotUnavailable):
        await writing.add(b"x")
    with pytest.raises(SnapshotUnavailable):
        await store.newest()
    await store.close()
    with pytest.raises(SnapshotUnavailable):
        await SnapshotStream.open(private_nats.url, replicas=1, max_bytes=MOST, timeout_s=0.2)
