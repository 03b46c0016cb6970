"""A worker that ends while tasks arrive leaves no claim behind, whatever instance it asks."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast_worker import AsyncTask, Client, Worker
from holdfast_worker.views import PlanView
from tests.conftest import PrivateServer
from tests.faults.service_process import ServiceProcess
from tests.integration.kit_world import SHORT

FEW, MANY = 10, 200
HELD = {"CLAIMED", "RUNNING"}


@pytest.fixture(params=[1, 2], ids=["one instance", "two instances"])
def urls(
    request: pytest.FixtureRequest, tmp_path: Path, private_nats: PrivateServer
) -> Iterator[list[str]]:
    """Where the worker asks, and where its tasks come from."""
    with ExitStack() as stack:
        instances = [
            ServiceProcess(tmp_path / f"{n}", nats_url=private_nats.url, roles="api,daemons")
            for n in range(request.param)
        ]
        for each in instances:
            stack.callback(each.kill)
            each.start()
        yield [each.url for each in instances]


class Race:
    """One worker that is stopped at some moment after its tasks have come."""

    def __init__(self, url: str, number: int) -> None:
        self.ran: list[tuple[str, int]] = []
        self.kind = f"race{number}"  # tasks that another left are none of its own
        self.worker = Worker(self.kind, slots=2, url=url, limits=SHORT)
        self.worker.task(self.kind, lease_s=30)(self._run)

    async def _run(self, task: AsyncTask) -> int:
        self.ran.append((task.task_id, task.attempt))
        return task.attempt

    async def run(self, client: Client, after_s: float) -> PlanView:
        """The plan once the worker has ended, as the log has it."""
        tasks = [{"id": f"t{n}", "kind": self.kind} for n in range(2)]
        with self.worker:
            await asyncio.sleep(0.05)
            plan_id = (await client.submit({"tasks": tasks})).plan_id
            await asyncio.sleep(after_s)
            await asyncio.to_thread(self.worker.stop, 0)
        other = await client.submit({"tasks": [{"id": "t", "kind": "another"}]})
        after_all = (await client.cancel(other.plan_id)).sequence
        return await client.get(plan_id, min_sequence=after_all)


@pytest.mark.timeout(1_200)
async def test_no_claim_is_left_behind_and_none_is_lost(
    urls: list[str], *, long_faults: bool
) -> None:
    dice = random.Random(11)
    async with Client(urls[-1]) as client:
        for number in range(MANY if long_faults else FEW):
            race = Race(urls[0], number)
            plan = await race.run(client, dice.uniform(0, 0.02))
            assert not [task for task in plan.tasks if task.status in HELD], (number, plan.tasks)
            assert [task.lost for task in plan.tasks] == [0, 0]
            said = race.worker.counters
            assert (said.claimed, said.lost) == (said.completed + said.released, 0)
            assert said.completed == sum(task.status == "COMPLETED" for task in plan.tasks)
            assert len(race.ran) == len({task_id for task_id, _ in race.ran}), race.ran
