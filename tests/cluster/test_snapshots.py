"""Snapshots of the read models on three servers: a lost leader costs an attempt, not the newest."""

import random
from pathlib import Path

import pytest

from streams.jetstream.snapshot_stream import SnapshotPatience, SnapshotStream
from streams.snapshot_store import KeptSnapshot, ReadModelSnapshot, SnapshotUnavailable
from tests.cluster.nats_cluster import NatsCluster
from tests.waiting import answered

pytestmark = pytest.mark.faults

PIECES = [random.Random(n).randbytes(300_000) for n in range(24)]
ABOUT = ReadModelSnapshot(
    epoch="e", schema=1, sequence=1, witness=None, bytes=1, sha256="", at=0.0, took_s=0.0
)


async def opened(cluster: NatsCluster, *, alive_s: float = 60.0) -> SnapshotStream:
    return await SnapshotStream.open(
        ",".join(cluster.client_urls),
        replicas=3,
        max_bytes=1 << 26,
        timeout_s=20,
        patience=SnapshotPatience(answer_s=10.0, alive_s=alive_s),
    )


async def written(store: SnapshotStream) -> KeptSnapshot:
    writing = await store.begin()
    assert writing is not None
    await writing.renew()
    for piece in PIECES:
        await writing.add(piece)
    await writing.finish(ABOUT)
    kept = await store.newest()
    assert kept is not None
    return kept


async def read(store: SnapshotStream, kept: KeptSnapshot) -> list[bytes]:
    return [piece async for page in store.pieces(kept) for piece in page]


@pytest.mark.timeout(180)
async def test_the_newest_stays_whole_when_the_leader_is_lost_in_the_middle_of_another(
    tmp_path: Path,
) -> None:
    cluster = NatsCluster(tmp_path)
    await cluster.start()
    try:
        store, other = await opened(cluster), await opened(cluster)
        await written(store)
        kept = await written(store)
        assert await read(other, kept) == PIECES
        writing = await store.begin()
        assert writing is not None
        assert await other.begin() is None
        await writing.add(PIECES[0])
        cluster.nodes[await cluster.leader("SNAPSHOTS")].kill()

        async def is_over() -> bool:
            """Whether the attempt has ended: its server, or an answer, may be gone."""
            try:
                await writing.add(PIECES[1])
            except SnapshotUnavailable:
                return True
            return False

        async def newest() -> KeptSnapshot | None:
            late = await opened(cluster)
            try:
                return await late.newest()
            except SnapshotUnavailable:
                return None
            finally:
                await late.close()

        await answered(is_over, "the attempt has ended")
        assert await answered(newest, "another server leads", 60) == kept
        late = await opened(cluster, alive_s=0.0)
        assert await read(late, kept) == PIECES
        assert await read(late, await written(late)) == PIECES
        for each in (late, other, store):
            await each.close()
    finally:
        await cluster.stop()
