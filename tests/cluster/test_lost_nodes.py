"""The first node that is lost is named, and the second is the end of the quorum, at once."""

from pathlib import Path

import pytest

from tests.cluster.ports import NUMBERS
from tests.cluster.probed_log import ProbedLog, probed_cluster
from tests.waiting import eventually

pytestmark = [
    pytest.mark.faults,
    # nats-py does not close a socket that is reset before the server's first word.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SOON_S = 40.0


@pytest.mark.timeout(180)
async def test_a_lost_leader_is_named_and_its_successor_is_not_believed_alone(
    tmp_path: Path,
) -> None:
    async with probed_cluster(tmp_path) as (cluster, probed):
        assert probed.late == ()
        first = await cluster.leader()
        cluster.nodes[first].kill()
        # Its successor has never heard it, and shows that as if it heard it at this moment.
        await _is_named_as_silent(probed, first)
        leader = await cluster.leader()
        second = next(node for node in NUMBERS if node not in (first, leader))
        cluster.nodes[second].kill()
        # It says that it leads for ten seconds more.
        alone = f"leader n{leader} hears 1 of 3"
        await eventually(lambda: alone in (probed.log.uncertain or ""), alone, SOON_S)
        cluster.nodes[second].start()
        cluster.nodes[first].start()
        await eventually(
            lambda: probed.state is not None and not probed.state.late,
            "no node is named",
            SOON_S,
        )


async def _is_named_as_silent(probed: ProbedLog, node: int) -> None:
    """By the new leader."""
    await eventually(lambda: probed.state is None, "there is no leader", SOON_S)
    await eventually(lambda: probed.state, "a new leader answers", SOON_S)
    await eventually(
        lambda: any(each.node == f"n{node}" and each.silent for each in probed.late),
        f"n{node} is named",
        SOON_S,
    )
