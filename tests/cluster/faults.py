"""The faults of a run, alone and mixed: what is done to the farm, and for how long."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import reduce

import msgspec

from tests.cluster.farm import Farm
from tests.cluster.instance_faults import (
    all_instances_killed,
    clock_wrong,
    instance_cut_off,
    instance_frozen,
    instance_killed,
    instances_restarted,
    restart_instances,
    started_at_node_cut_off,
    stopped_beside_frozen_log,
)
from tests.cluster.node_faults import (
    all_nodes_frozen,
    all_nodes_killed,
    follower_cut_off,
    follower_frozen,
    follower_killed,
    follower_lagging,
    follower_wiped,
    leader_cut_off,
    leader_frozen,
    leader_killed,
    leaders_killed_in_turn,
    links_slow,
    nodes_restarted,
    restart_nodes,
)
from tests.cluster.ports import NUMBERS
from tests.cluster.reach import Injection, Reach

CLOCK_AHEAD_S = 600


class Fault(msgspec.Struct, frozen=True):
    """One fault that lasts for ``hold_s`` seconds."""

    name: str
    inject: Injection
    hold_s: float


def both(first: Injection, second: Injection, between_s: float = 2.0) -> Injection:
    """The second while the first lasts; healed in the opposite order."""

    @asynccontextmanager
    async def inject(farm: Farm) -> AsyncGenerator[Reach]:
        async with first(farm) as one:
            await asyncio.sleep(between_s)
            async with second(farm) as two:
                nodes = {*one.nodes, *two.nodes}
                yield Reach(
                    nodes=tuple(nodes),
                    apart=tuple({*one.apart, *two.apart}),
                    stranded=tuple({*one.stranded, *two.stranded}),
                    silent=tuple({*one.silent, *two.silent}),
                    behind=tuple({*one.behind, *two.behind}),
                    clocks=tuple({*one.clocks, *two.clocks}),
                    lag_s=max(one.lag_s, two.lag_s),
                    quorum=one.quorum
                    and two.quorum
                    and len({*one.nodes, *two.nodes}) < len(NUMBERS) - 1,
                )

    return inject


def several(*injections: Injection) -> Injection:
    """Each one while those before it last."""
    return reduce(both, injections)


@asynccontextmanager
async def everything_restarted(farm: Farm) -> AsyncGenerator[Reach]:
    """An operator upgrades the nodes one by one, and another one the instances meanwhile."""
    await asyncio.gather(restart_nodes(farm), restart_instances(farm))
    yield Reach()


SHORT = (
    Fault("leader cut off, 12 s", leader_cut_off, 12),
    Fault("follower frozen, 12 s", follower_frozen, 12),
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
    Fault("leader cut off, instance frozen", both(leader_cut_off, instance_frozen(3)), 20),
    Fault("leaders killed in turn", leaders_killed_in_turn, 1),
    Fault("follower killed, leader frozen", both(follower_killed, leader_frozen), 8),
    Fault("follower lagging, leader cut off", both(follower_lagging, leader_cut_off), 15),
    Fault("links slow, follower wiped", both(links_slow, follower_wiped), 10),
    Fault("all instances killed", all_instances_killed, 3),
    Fault("instance killed, all nodes killed", both(instance_killed(2), all_nodes_killed), 5),
    Fault("clock behind, all nodes frozen", both(clock_wrong(1, -300), all_nodes_frozen), 8),
    Fault("instance cut off, nodes restarted", both(instance_cut_off(1), nodes_restarted), 1),
    Fault("nodes and instances restarted at once", everything_restarted, 1),
    Fault(
        "links slow, leader frozen, instance killed",
        several(links_slow, leader_frozen, instance_killed(1)),
        8,
    ),
    Fault(
        "clock ahead, follower cut off, instance frozen",
        several(clock_wrong(3, CLOCK_AHEAD_S), follower_cut_off, instance_frozen(1)),
        15,
    ),
)

LONG = (*_ALONE, *_MIXED)
