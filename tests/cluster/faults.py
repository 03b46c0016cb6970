"""The faults, each with its remedy: what is done to the farm, for how long, and who suffers."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec

from tests.cluster.farm import Farm
from tests.cluster.ports import NUMBERS

LAG_STEP_S = 0.5  # a replica that lags more all at once would call an election
LAG_STEP_PAUSE_S = 0.7
CLOCK_AHEAD_S = 600


class Reach(msgspec.Struct, frozen=True):
    """Which nodes and instances a fault strikes: see `tests.cluster.record.FaultRun`."""

    nodes: tuple[int, ...] = ()
    apart: tuple[int, ...] = ()
    stranded: tuple[int, ...] = ()
    quorum: bool = True


Injection = Callable[[Farm], AbstractAsyncContextManager[Reach]]
"""Injects on entry, heals on exit."""


class Fault(msgspec.Struct, frozen=True):
    """One fault that lasts for ``hold_s`` seconds."""

    name: str
    inject: Injection
    hold_s: float


# -- nodes ----------------------------------------------------------------------------------------


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
    yield Reach(nodes=(node.number,))
    node.start()


@asynccontextmanager
async def leader_frozen(farm: Farm) -> AsyncGenerator[Reach]:
    """The node that leads the log is suspended."""
    node = farm.nodes[await farm.cluster.leader()]
    stranded = farm.connected_to(node.number)
    node.freeze()
    yield Reach(nodes=(node.number,), stranded=stranded)
    node.thaw()


@asynccontextmanager
async def leader_cut_off(farm: Farm) -> AsyncGenerator[Reach]:
    """The leader cannot reach the other nodes; the instances reach all three."""
    node = await farm.cluster.leader()
    stranded = farm.connected_to(node)
    farm.links.cut(farm.links.routes_of(node))
    yield Reach(nodes=(node,), stranded=stranded)
    farm.links.mend(farm.links.routes_of(node))


@asynccontextmanager
async def follower_killed(farm: Farm) -> AsyncGenerator[Reach]:
    """A node that does not lead, and that hosts a tail, dies and is started again."""
    node = farm.nodes[await follower(farm)]
    node.kill()
    yield Reach(nodes=(node.number,))
    node.start()


@asynccontextmanager
async def follower_frozen(farm: Farm) -> AsyncGenerator[Reach]:
    """A node that does not lead, and that hosts a tail, is suspended."""
    node = farm.nodes[await follower(farm)]
    stranded = farm.connected_to(node.number)
    node.freeze()
    yield Reach(nodes=(node.number,), stranded=stranded)
    node.thaw()


@asynccontextmanager
async def follower_cut_off(farm: Farm) -> AsyncGenerator[Reach]:
    """A node that does not lead cannot reach the other nodes; the instances reach all three."""
    node = await follower(farm)
    stranded = farm.connected_to(node)
    farm.links.cut(farm.links.routes_of(node))
    yield Reach(nodes=(node,), stranded=stranded)
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
    async with lagging(farm, await follower(farm)):
        yield Reach()


@asynccontextmanager
async def lagging(farm: Farm, node: int) -> AsyncGenerator[None]:
    """The replica on this node gets entries more and more late, up to 4 s."""
    for step in range(1, 9):
        farm.links.lag(node, step * LAG_STEP_S)
        await asyncio.sleep(LAG_STEP_PAUSE_S)
    yield
    farm.links.mend(farm.links.routes_of(node))


@asynccontextmanager
async def nodes_restarted(farm: Farm) -> AsyncGenerator[Reach]:
    """An operator upgrades one node after the other."""
    for node in farm.nodes.values():
        node.terminate()
        while node.running:
            await asyncio.sleep(0.1)
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


# -- instances ------------------------------------------------------------------------------------


def instance_frozen(number: int) -> Injection:
    """The machine of an instance is suspended."""

    @asynccontextmanager
    async def inject(farm: Farm) -> AsyncGenerator[Reach]:
        farm.freeze_instance(number)
        yield Reach(apart=(number,))
        farm.thaw_instance(number)

    return inject


def instance_killed(number: int) -> Injection:
    """An instance dies, and is started again."""

    @asynccontextmanager
    async def inject(farm: Farm) -> AsyncGenerator[Reach]:
        farm.kill_instance(number)
        yield Reach(apart=(number,))
        await _started_again(farm, number)

    return inject


def instance_cut_off(number: int) -> Injection:
    """An instance reaches no node."""

    @asynccontextmanager
    async def inject(farm: Farm) -> AsyncGenerator[Reach]:
        farm.links.cut(farm.links.clients_of(number))
        yield Reach(apart=(number,))
        farm.links.mend(farm.links.clients_of(number))

    return inject


def clock_wrong(number: int, ahead_s: int) -> Injection:
    """The wall clock of an instance's machine jumps."""

    @asynccontextmanager
    async def inject(farm: Farm) -> AsyncGenerator[Reach]:
        farm.instances[number].set_clock(ahead_s)
        yield Reach()
        farm.instances[number].set_clock(0)

    return inject


@asynccontextmanager
async def instances_restarted(farm: Farm) -> AsyncGenerator[Reach]:
    """An operator upgrades one instance after the other."""
    for number in NUMBERS:
        await farm.stop_instance(number)
        await _started_again(farm, number)
    yield Reach()


@asynccontextmanager
async def stopped_beside_frozen_log(farm: Farm) -> AsyncGenerator[Reach]:
    """Every node is suspended, and an operator stops an instance that has requests in flight."""
    for node in farm.nodes.values():
        node.freeze()
    await asyncio.sleep(1)
    await farm.stop_instance(3)
    yield Reach(apart=(3,), quorum=False)
    for node in farm.nodes.values():
        node.thaw()
    await _started_again(farm, 3)


@asynccontextmanager
async def started_at_node_cut_off(farm: Farm) -> AsyncGenerator[Reach]:
    """An instance is started when the first node that it reaches is cut off from the others."""
    node = await follower(farm)
    await farm.stop_instance(3)
    farm.links.cut(farm.links.routes_of(node))
    stranded = farm.connected_to(node)
    others = [f"c3{other}" for other in NUMBERS if other != node]
    farm.links.refuse(others)
    farm.start_instance(3)
    await asyncio.sleep(5)
    farm.links.mend(others)
    yield Reach(nodes=(node,), apart=(3,), stranded=stranded)
    farm.links.mend(farm.links.routes_of(node))
    await farm.await_ready((3,))
    farm.comes_back(3)


async def _started_again(farm: Farm, number: int) -> None:
    farm.start_instance(number)
    await farm.await_ready((number,))
    farm.comes_back(number)


# -- mixtures -------------------------------------------------------------------------------------


def both(first: Injection, second: Injection, between_s: float = 2.0) -> Injection:
    """The second while the first lasts; healed in the opposite order."""

    @asynccontextmanager
    async def inject(farm: Farm) -> AsyncGenerator[Reach]:
        async with first(farm) as one:
            await asyncio.sleep(between_s)
            async with second(farm) as two:
                yield Reach(
                    nodes=tuple({*one.nodes, *two.nodes}),
                    apart=tuple({*one.apart, *two.apart}),
                    stranded=tuple({*one.stranded, *two.stranded}),
                    quorum=one.quorum and two.quorum,
                )

    return inject


SHORT = (
    Fault("leader cut off, 12 s", leader_cut_off, 12),
    Fault("follower frozen, 8 s", follower_frozen, 8),
    Fault("leader killed, 8 s", leader_killed, 8),
    Fault("instance stopped beside frozen nodes", stopped_beside_frozen_log, 1),
)

_ALONE = (
    Fault("leader killed, 10 s", leader_killed, 10),
    Fault("leader frozen, 5 s", leader_frozen, 5),
    Fault("leader frozen, 20 s", leader_frozen, 20),
    Fault("leader cut off, 40 s", leader_cut_off, 40),
    Fault("follower killed, 15 s", follower_killed, 15),
    Fault("follower frozen, 20 s", follower_frozen, 20),
    Fault("follower cut off, 20 s", follower_cut_off, 20),
    Fault("follower wiped", follower_wiped, 10),
    Fault("follower lagging, 15 s", follower_lagging, 15),
    Fault("nodes restarted one by one", nodes_restarted, 1),
    Fault("all nodes killed, 5 s", all_nodes_killed, 5),
    Fault("all nodes frozen, 8 s", all_nodes_frozen, 8),
    Fault("links slow, 15 s", links_slow, 15),
    Fault("instance frozen, 30 s", instance_frozen(1), 30),
    Fault("instance cut off, 20 s", instance_cut_off(2), 20),
    Fault("instance killed, 5 s", instance_killed(3), 5),
    Fault("clock 10 min ahead, 20 s", clock_wrong(1, CLOCK_AHEAD_S), 20),
    Fault("clock 10 min behind, 20 s", clock_wrong(2, -CLOCK_AHEAD_S), 20),
    Fault("instances restarted one by one", instances_restarted, 1),
    Fault("instance stopped beside frozen nodes", stopped_beside_frozen_log, 1),
    Fault("instance started at a node cut off", started_at_node_cut_off, 10),
)

_MIXED = (
    Fault("follower lagging, leader killed", both(follower_lagging, leader_killed), 10),
    Fault("follower lagging, instances restarted", both(follower_lagging, instances_restarted), 1),
    Fault("links slow, leader killed", both(links_slow, leader_killed), 10),
    Fault("links slow, leader cut off", both(links_slow, leader_cut_off), 15),
    Fault(
        "clock ahead, leader frozen 20 s", both(clock_wrong(2, CLOCK_AHEAD_S), leader_frozen), 20
    ),
    Fault("clock behind, instance 2 killed", both(clock_wrong(1, -300), instance_killed(2)), 5),
    Fault("instance frozen, leader killed", both(instance_frozen(2), leader_killed), 12),
    Fault("instance cut off, leader cut off", both(instance_cut_off(1), leader_cut_off), 15),
    Fault("leader cut off, instance killed", both(leader_cut_off, instance_killed(1)), 5),
    Fault("follower frozen, instance killed", both(follower_frozen, instance_killed(2)), 5),
)

# Every fault alone, then mixtures, then the faults of nodes again with the leader elsewhere.
LONG = (*_ALONE, *_MIXED, *_ALONE[:9])
