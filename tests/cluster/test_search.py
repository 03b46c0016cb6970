"""When an instance leaves its server for another: real nodes behind the proxy that cuts links."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from streams.jetstream.log import JetStreamLog
from tests.cluster.nats_cluster import NatsCluster
from tests.cluster.ports import NUMBERS
from tests.cluster.probed_log import INSTANCE, probed_cluster
from tests.waiting import eventually

pytestmark = [
    pytest.mark.faults,
    # nats-py does not close a socket that is reset before the server's first word.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LONG_S = 12.0  # longer than an election
LEFT_S = 20.0
ELECTION_S = 60.0  # NATS takes 4 to 9 s, and as long again after a vote that nobody won


@pytest.mark.timeout(180)
async def test_a_server_is_left_when_it_is_frozen_or_cut_off_and_not_for_an_election(
    tmp_path: Path,
) -> None:
    async with probed_cluster(tmp_path) as (cluster, probed):
        log = probed.log
        await stays_while_nobody_can_lead(cluster, log)
        await leaves_one_that_is_frozen(cluster, log)
        await leaves_one_that_is_cut_off(cluster, log, await cluster.leader())
        await leaves_one_that_is_cut_off(cluster, log, await a_follower(cluster))


async def stays_while_nobody_can_lead(cluster: NatsCluster, log: JetStreamLog) -> None:
    """Two of three nodes are frozen: the one that is left is as good as it gets."""
    node = connected_to(cluster)
    others = [cluster.nodes[each] for each in NUMBERS if each != node]
    for other in others:
        other.freeze()
    try:
        await asyncio.sleep(LONG_S)
        assert log.uncertain is not None
        assert log.reconnects == 0
    finally:
        for other in others:
            other.thaw()
    await is_certain_again(cluster, log)
    assert log.reconnects == 0


async def leaves_one_that_is_frozen(cluster: NatsCluster, log: JetStreamLog) -> None:
    # Right after a thaw the links may still show a second connection that is being closed.
    node = await eventually(lambda: connected_to(cluster), "it has one connection", LEFT_S)
    moves = log.reconnects
    cluster.nodes[node].freeze()
    try:
        await leaves(log, node, moves)
    finally:
        cluster.nodes[node].thaw()
    await is_certain_again(cluster, log)


async def leaves_one_that_is_cut_off(cluster: NatsCluster, log: JetStreamLog, node: int) -> None:
    await move(cluster, log, node)
    moves = log.reconnects
    cluster.links.cut(cluster.links.routes_of(node))
    try:
        await soon(lambda: others_have_a_leader(cluster, node), "they have a leader", ELECTION_S)
        await leaves(log, node, moves)
    finally:
        cluster.links.mend(cluster.links.routes_of(node))
    await is_certain_again(cluster, log)


async def leaves(log: JetStreamLog, node: int, moves: int) -> None:
    """For another one that shows a leader, in one move; there were ``moves`` before."""
    await soon(lambda: asyncio.sleep(0, log.reconnects > moves), f"node {node} is left")
    await soon(lambda: asyncio.sleep(0, log.uncertain is None), "another node shows a leader")
    assert log.reconnects == moves + 1


async def move(cluster: NatsCluster, log: JetStreamLog, node: int) -> None:
    """Let the log be connected to this node; the other nodes stay reachable."""
    others = [f"c{INSTANCE}{each}" for each in NUMBERS if each != node]
    cluster.links.refuse(others)
    await soon(lambda: asyncio.sleep(0, connected_to(cluster) == node), f"connected to {node}")
    cluster.links.mend(others)
    await is_certain_again(cluster, log)


async def is_certain_again(cluster: NatsCluster, log: JetStreamLog) -> None:
    await soon(cluster.is_whole, "the cluster is whole")
    await soon(lambda: asyncio.sleep(0, log.uncertain is None), "the log is certain")


async def others_have_a_leader(cluster: NatsCluster, node: int) -> bool:
    """Whether the other nodes agree on one of them."""
    named = {each for asked, each in (await cluster.leaders()).items() if asked != node}
    return len(named) == 1 and named <= {f"n{each}" for each in NUMBERS if each != node}


async def a_follower(cluster: NatsCluster) -> int:
    leader = await cluster.leader()
    return next(node for node in NUMBERS if node != leader)


def connected_to(cluster: NatsCluster) -> int:
    """The node that the log has a connection to; 0 for none."""
    nodes = cluster.links.nodes_of(INSTANCE)
    return nodes[0] if len(nodes) == 1 else 0


async def soon(is_so: Callable[[], Awaitable[bool]], what: str, within_s: float = LEFT_S) -> None:
    deadline = time.monotonic() + within_s
    while not await is_so():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.05)
