"""The bounds of replicated streams: worked out from the account's limit, and kept on every node."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Raw

from streams.jetstream.audit_stream import TrailEntry
from streams.jetstream.bounds import StreamBounds
from streams.jetstream.log import JetStreamLog
from streams.log import LogFull
from streams.plan.events import Completed
from tests.cluster.nats_cluster import NatsCluster
from tests.cluster.ports import NUMBERS
from tests.contract.drafts import on_task, won

pytestmark = [
    pytest.mark.faults,
    # nats-py does not close a socket that is reset before the server's first word.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

INSTANCE = 1  # whose links to the nodes are used
REPLICAS = len(NUMBERS)
MIB = 1024 * 1024
ROOM = (
    10 * MIB
)  # for each copy of everything: the account's limit counts a message for each replica
ACCOUNT = f"""
accounts {{
  A {{ jetstream: {{ max_file: {REPLICAS * ROOM} }}, users: [ {{ user: a, password: a }} ] }}
}}
no_auth_user: a
"""
BY_SHARE = StreamBounds(plans_share=0.5, audit_bytes=1024 * MIB)
PLANS, AUDIT = ROOM // 2, ROOM // 10
# With the audit trail, and a fact that is one too many, less than the account's limit: the server
# looks at that first, and may count the copies of the other nodes at once or later.
GREATER = 8 * MIB
FACT, ENTRY = 500_000, 100_000


@asynccontextmanager
async def log_at(cluster: NatsCluster, bounds: StreamBounds) -> AsyncIterator[JetStreamLog]:
    url = cluster.urls_for(INSTANCE)
    log = await JetStreamLog.connect(url, replicas=REPLICAS, bounds=bounds, connect_timeout_s=30)
    try:
        yield log
    finally:
        await log.close()


@pytest.mark.timeout(120)
async def test_a_share_of_the_account_bounds_both_streams_on_every_node(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path, ACCOUNT)
    try:
        await cluster.start()
        async with log_at(cluster, BY_SHARE) as log:
            assert (await log.state()).max_bytes == PLANS
            held = await _fill(log)
            assert PLANS // FACT - 2 <= held <= PLANS // FACT
            for number in range(2 * AUDIT // ENTRY):
                subject = f"audit.execution_failed.p.t{number}"
                entry = TrailEntry(
                    id=f"e{number}", event="e", subject=subject, payload=b"x" * ENTRY
                )
                await log.trail.write([entry])
            extent = await log.trail.extent()
            assert 1 < extent.first < extent.head == 2 * AUDIT // ENTRY
        for stream, bound in (("PLANS", PLANS), ("AUDIT", AUDIT)):
            async with asyncio.timeout(20):
                while not await _alike(cluster, stream):
                    await asyncio.sleep(0.1)
            stored = await cluster.stored(stream)
            assert max(stored.values()) <= bound, f"{stream}: {stored}"
        async with log_at(cluster, StreamBounds(plans_bytes=GREATER)) as log:
            assert (await log.state()).max_bytes == GREATER
            assert await _fill(log) > held, "a greater bound makes room at once"
            assert (await log.state()).first == 1, "no fact has left"
    finally:
        await cluster.stop()


async def _fill(log: JetStreamLog) -> int:
    """Write until the log is full; the last sequence."""
    with pytest.raises(LogFull, match=r"PLANS may hold [\d,]+ bytes"):
        await _write(log)
    return (await log.state()).head


async def _write(log: JetStreamLog) -> None:
    for number in range((await log.state()).head, 2 * ROOM // FACT):
        said = Completed(owner="w", attempt=1, output=Raw(b'"' + b"x" * FACT + b'"'))
        await won(log, on_task(f"t{number}", 0, said))


async def _alike(cluster: NatsCluster, stream: str) -> bool:
    """Whether every node stores the same."""
    stored = await cluster.stored(stream)
    return len(stored) == REPLICAS and len(set(stored.values())) == 1
