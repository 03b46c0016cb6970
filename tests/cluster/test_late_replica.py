"""A replica that lags answers reads too: what an instance folds from them must not lack a fact.

A finished plan that is no longer in memory is folded from the log again when an operator asks for
it. NATS spreads such reads over all replicas, so one of them may know only half of the plan.
"""

import asyncio
from pathlib import Path

import pytest

from tests.cluster.caller import Caller
from tests.cluster.checker import told, violations
from tests.cluster.farm import Farm, running_farm
from tests.cluster.forgetful import TASKS
from tests.cluster.log_reader import read_log
from tests.cluster.node_faults import lagging
from tests.cluster.ports import NUMBERS
from tests.cluster.read_models import views_of
from tests.cluster.record import History, Json

pytestmark = pytest.mark.faults

PLANS = 6
LAG_S = 4.5


@pytest.mark.timeout(180)
async def test_a_plan_that_is_recalled_beside_a_late_replica_is_complete(tmp_path: Path) -> None:
    history = History()
    async with running_farm(tmp_path, history, "tests.cluster.forgetful") as farm:
        caller = Caller(farm.addresses, history.calls)
        try:
            async with lagging(farm, await _follower_without_tails(farm)):
                await _recall_plans(caller)
            await farm.cluster.await_whole()
            await _look_back(farm, history)
        finally:
            await caller.close()
    found = violations(history)
    assert not found, told(found, history)


async def _follower_without_tails(farm: Farm) -> int:
    """A node that no instance depends on: a late tail would make every write late."""
    leader = await farm.cluster.leader()
    async with asyncio.timeout(60):
        while True:
            for number in NUMBERS:
                await farm.place(number, leader)
            hosts = await farm.cluster.tail_hosts()
            for node in NUMBERS:
                if node != leader and not hosts[node]:
                    return node
            for number in NUMBERS:  # a new connection brings a new tail, perhaps elsewhere
                await farm.place(number, next(node for node in NUMBERS if node != leader))


async def _recall_plans(caller: Caller) -> None:
    """Let plans fail, let every instance forget them, and retry their tasks at once."""
    fillers = [await _submit_filler(caller, f"filler-{half}") for half in range(2)]
    claims = [await _claimed(caller, f"recalled-{number}") for number in range(PLANS)]
    await asyncio.sleep(LAG_S)  # by now the late replica has all of this, and nothing of the rest
    for claim in claims:
        said = {"error_type": "tool_error", "retryable": False}
        assert (await caller.own(1, "fail", claim, "worker", **said)).status == 200
    for filler in fillers:
        await caller.operate(1, "cancel", filler)
    for number, claim in enumerate(claims):
        instance = NUMBERS[number % len(NUMBERS)]
        call, _ = await caller.retry(instance, claim["plan_id"], "t")
        assert call.status == 200, f"the newest facts are missing: {call}"


async def _submit_filler(caller: Caller, plan_id: str) -> str:
    tasks = [{"id": f"t{n}", "kind": "unclaimed"} for n in range(TASKS // 2)]
    call, _ = await caller.submit(1, {"id": plan_id, "tasks": tasks})
    assert call.status == 201, call
    return plan_id


async def _claimed(caller: Caller, plan_id: str) -> Json:
    task = {"id": "t", "kind": plan_id, "max_retries": 0, "lease_s": 60}
    await caller.submit(1, {"id": plan_id, "tasks": [task]})
    _, claims = await caller.claim(1, "worker", kinds=[plan_id], wait_s=10)
    return claims[0]


async def _look_back(farm: Farm, history: History) -> None:
    history.facts = await read_log(farm.cluster.client_urls)
    for number, address in farm.addresses.items():
        history.views.append(await views_of(number, address, history.facts[-1].sequence))
