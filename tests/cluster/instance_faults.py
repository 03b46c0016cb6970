"""What happens to the instances, and how it is healed."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.cluster.farm import Farm
from tests.cluster.node_faults import follower
from tests.cluster.ports import NUMBERS
from tests.cluster.reach import Injection, Reach


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
        yield Reach(clocks=(number,))
        farm.instances[number].set_clock(0)

    return inject


@asynccontextmanager
async def instances_restarted(farm: Farm) -> AsyncGenerator[Reach]:
    """An operator upgrades one instance after the other."""
    await restart_instances(farm)
    yield Reach()


async def restart_instances(farm: Farm) -> None:
    """One instance after the other, each when the one before is ready."""
    for number in NUMBERS:
        await farm.stop_instance(number)
        await _started_again(farm, number)


@asynccontextmanager
async def all_instances_killed(farm: Farm) -> AsyncGenerator[Reach]:
    """Every instance dies at once, and all are started again."""
    for number in NUMBERS:
        farm.kill_instance(number)
    yield Reach(apart=NUMBERS)
    for number in NUMBERS:
        farm.start_instance(number)
    for number in NUMBERS:
        await farm.await_ready((number,))
        farm.comes_back(number)


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
    yield Reach(nodes=(node,), silent=(node,), apart=(3,), stranded=stranded)
    farm.links.mend(farm.links.routes_of(node))
    await farm.await_ready((3,))
    farm.comes_back(3)


async def _started_again(farm: Farm, number: int) -> None:
    farm.start_instance(number)
    await farm.await_ready((number,))
    farm.comes_back(number)
