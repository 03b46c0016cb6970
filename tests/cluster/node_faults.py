"""What happens to the nodes and their links, and how it is healed."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.cluster.farm import Farm
from tests.cluster.ports import NUMBERS
from tests.cluster.reach import Reach

LAG_STEPS = 8
LAG_STEP_S = 0.5  # a replica that lags more all at once would call an election
LAG_STEP_PAUSE_S = 0.7


async def follower(farm: Farm) -> int:
    """A node that does not lead the log: one that hosts an instance's tail, if there is one."""
    leader = await farm.cluster.leader()
    hosts = await farm.cluster.tail_hosts()
    return max((node for node in NUMBERS if node != leader), key=lambda node: hosts[node])


@asynccontextmanager
async def leader_killed(farm: Farm) -> AsyncGenerator[Reach]:
    """The node that leads the log dies, and is started again."""
    node = farm.nodes[await farm.cluster.leader()]
    node.kill()
    yield Reach(nodes=(node.number,), silent=(node.number,))
    node.start()


@asynccontextmanager
async def leader_frozen(farm: Farm) -> AsyncGenerator[Reach]:
    """The node that leads the log is suspended."""
    node = farm.nodes[await farm.cluster.leader()]
    stranded = farm.connected_to(node.number)
    node.freeze()
    yield Reach(nodes=(node.number,), silent=(node.number,), stranded=stranded)
    node.thaw()


@asynccontextmanager
async def leader_cut_off(farm: Farm) -> AsyncGenerator[Reach]:
    """The leader cannot reach the other nodes; the instances reach all three."""
    node = await farm.cluster.leader()
    stranded = farm.connected_to(node)
    farm.links.cut(farm.links.routes_of(node))
    yield Reach(nodes=(node,), silent=(node,), stranded=stranded)
    farm.links.mend(farm.links.routes_of(node))


@asynccontextmanager
async def follower_killed(farm: Farm) -> AsyncGenerator[Reach]:
    """A node that does not lead, and that hosts a tail, dies and is started again."""
    node = farm.nodes[await follower(farm)]
    node.kill()
    yield Reach(nodes=(node.number,), silent=(node.number,))
    node.start()


@asynccontextmanager
async def follower_frozen(farm: Farm) -> AsyncGenerator[Reach]:
    """A node that does not lead, and that hosts a tail, is suspended."""
    node = farm.nodes[await follower(farm)]
    stranded = farm.connected_to(node.number)
    node.freeze()
    yield Reach(nodes=(node.number,), silent=(node.number,), stranded=stranded)
    node.thaw()


@asynccontextmanager
async def follower_cut_off(farm: Farm) -> AsyncGenerator[Reach]:
    """A node that does not lead cannot reach the other nodes; the instances reach all three."""
    node = await follower(farm)
    stranded = farm.connected_to(node)
    farm.links.cut(farm.links.routes_of(node))
    yield Reach(nodes=(node,), silent=(node,), stranded=stranded)
    farm.links.mend(farm.links.routes_of(node))


@asynccontextmanager
async def follower_wiped(farm: Farm) -> AsyncGenerator[Reach]:
    """A node that does not lead dies, its disk is replaced, and it is started again."""
    node = farm.nodes[await follower(farm)]
    node.kill()
    node.wipe()
    node.start()
    yield Reach(nodes=(node.number,))


@asynccontextmanager
async def follower_lagging(farm: Farm) -> AsyncGenerator[Reach]:
    """A replica that hosts a tail gets entries late, and everything else at once."""
    node = await follower(farm)
    async with lagging(farm, node):
        yield Reach(behind=(node,), lag_s=LAG_STEPS * LAG_STEP_S)


@asynccontextmanager
async def lagging(farm: Farm, node: int) -> AsyncGenerator[None]:
    """The replica on this node gets entries more and more late, up to 4 s."""
    for step in range(1, LAG_STEPS + 1):
        farm.links.lag(node, step * LAG_STEP_S)
        await asyncio.sleep(LAG_STEP_PAUSE_S)
    yield
    farm.links.mend(farm.links.routes_of(node))


@asynccontextmanager
async def nodes_restarted(farm: Farm) -> AsyncGenerator[Reach]:
    """An operator upgrades one node after the other."""
    await restart_nodes(farm)
    yield Reach()


async def restart_nodes(farm: Farm) -> None:
    """One node after the other, each when all are well."""
    for node in farm.nodes.values():
        node.terminate()
        while node.running:
            await asyncio.sleep(0.1)
        node.start()
        await farm.cluster.await_whole()


@asynccontextmanager
async def leaders_killed_in_turn(farm: Farm) -> AsyncGenerator[Reach]:
    """The leader dies, and so do its successor and the next one, each when all are well."""
    for _ in NUMBERS:
        node = farm.nodes[await farm.cluster.leader()]
        node.kill()
        await asyncio.sleep(2)
        node.start()
        await farm.cluster.await_whole()
    yield Reach()


@asynccontextmanager
async def all_nodes_killed(farm: Farm) -> AsyncGenerator[Reach]:
    """The power fails, and comes back."""
    for node in farm.nodes.values():
        node.kill()
    yield Reach(quorum=False)
    for node in farm.nodes.values():
        node.start()


@asynccontextmanager
async def all_nodes_frozen(farm: Farm) -> AsyncGenerator[Reach]:
    """Every node is suspended at once."""
    for node in farm.nodes.values():
        node.freeze()
    yield Reach(quorum=False)
    for node in farm.nodes.values():
        node.thaw()


@asynccontextmanager
async def links_slow(farm: Farm) -> AsyncGenerator[Reach]:
    """Every byte between the nodes, and to the instances, comes 50 ms later."""
    farm.links.delay(farm.links.names, 0.05)
    yield Reach()
    farm.links.mend(farm.links.names)
