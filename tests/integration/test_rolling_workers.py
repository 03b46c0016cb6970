"""A fleet of workers that is replaced under load, one after the other, loses no lease."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import msgspec
import pytest

from holdfast_worker import AsyncTask, Client, Worker
from holdfast_worker.testing import Server
from tests.integration.kit_world import SHORT, WorkerProgram

TASKS = 100  # per plan
TASK_S = 0.05
LEASE_S = 30.0
TOGETHER = 4  # so many are replaced at a time
FEW, MANY = 4, 100  # workers at a time; three of ten are programs of their own
PROGRAMS = {1, 4, 7}  # by the last digit of their number


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


class Member:
    """One worker of the fleet: it can be told to end, and answers what it has counted."""

    def __init__(self, url: str, number: int, stack: ExitStack) -> None:
        name = f"roll{number}"
        self._program: WorkerProgram | None = None
        if number % 10 in PROGRAMS:
            self._program = stack.enter_context(WorkerProgram(url, name, LEASE_S))
            return
        self._worker = Worker(name, slots=4, url=url, limits=SHORT)
        self._worker.task("waits", lease_s=LEASE_S)(_waits)
        self._worker.start()

    def works(self) -> None:
        """Wait until a program has had a task."""
        if self._program is not None:
            self._program.said("began", 120)

    def end(self) -> dict[str, int]:
        if self._program is not None:
            self._program.process.send_signal(signal.SIGTERM)
            return self._program.ended(60)
        self._worker.stop(0)
        return msgspec.to_builtins(self._worker.counters)


async def _waits(task: AsyncTask) -> str:
    await asyncio.sleep(TASK_S)
    return task.task_id


async def _load(client: Client, plan_ids: list[str], over: asyncio.Event) -> None:
    """One plan after the other, two at a time, so that every worker has something to do."""
    tasks = [{"id": f"t{n}", "kind": "waits", "input": {"seconds": TASK_S}} for n in range(TASKS)]
    while not over.is_set():
        plan_ids.append((await client.submit({"tasks": tasks})).plan_id)
        await client.wait(plan_ids[-1])


def _work(members: list[Member]) -> None:
    for member in members:
        member.works()


def _end(members: list[Member]) -> Counter[str]:
    """End each one at once; together they have counted this."""
    with ThreadPoolExecutor(TOGETHER) as pool:
        return sum((Counter(said) for said in pool.map(Member.end, members)), Counter[str]())


@pytest.mark.timeout(1_200)
async def test_workers_that_are_replaced_under_load_lose_no_lease(
    server: Server, *, long_faults: bool
) -> None:
    size = MANY if long_faults else FEW
    counted, plan_ids, over = Counter[str](), list[str](), asyncio.Event()
    with ExitStack() as stack:
        fleet = [Member(server.url, number, stack) for number in range(size)]
        async with Client(server.url) as client:
            async with asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(_load(client, plan_ids, over))
                await asyncio.to_thread(_work, fleet)
                for start in range(0, size, TOGETHER):
                    old = fleet[start : start + TOGETHER]
                    new = [Member(server.url, start + n, stack) for n in range(len(old))]
                    fleet[start : start + TOGETHER] = new
                    await asyncio.to_thread(_work, new)
                    counted += await asyncio.to_thread(_end, old)
                over.set()
            plans = [await client.get(plan_id) for plan_id in plan_ids]
        counted += await asyncio.to_thread(_end, fleet)
    print(f"{2 * size} workers, {len(plans)} plans: {dict(counted)}")  # noqa: T201
    assert {plan.status for plan in plans} == {"COMPLETED"}
    assert sum(task.lost for plan in plans for task in plan.tasks) == 0
    assert (counted["lost"], counted["completed"]) == (0, TASKS * len(plans))
