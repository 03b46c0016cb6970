"""Whatever is killed, whenever: nothing acknowledged is lost or done twice, and all plans end."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from tests.faults.crew import Ledger, Voice, Worker, fan, submit
from tests.faults.log_witness import (
    Attempt,
    TaskName,
    assert_completed_once,
    attempts_in,
    read_log_async,
)
from tests.faults.service_process import ServiceProcess, run_holdfast

pytestmark = pytest.mark.faults

POLL_S = 0.02
KILLS = ("service", "nats", "both")


class Size(msgspec.Struct, frozen=True):
    """How much of it: rounds, plans per round, tasks per plan, workers, and each one's handful."""

    rounds: int
    plans: int
    tasks: int
    workers: int
    hold: int
    round_s: float


SHORT = Size(rounds=2, plans=2, tasks=60, workers=6, hold=20, round_s=45)
LONG = Size(rounds=10, plans=5, tasks=120, workers=10, hold=50, round_s=120)


class Siege:
    """A service under work and under fire, and what was seen of it."""

    def __init__(self, service: ServiceProcess, size: Size, seed: int) -> None:
        self.service = service
        self.size = size
        self.dice = random.Random(seed)
        self.ledger = Ledger()
        self.voice = Voice(lambda: service.url)
        self.recoveries: list[tuple[str, float]] = []
        self.most_in_flight = 0
        self.workers = [
            Worker(f"w{n}", self.voice, self.ledger, random.Random(seed + n + 1), size.hold)
            for n in range(size.workers)
        ]

    async def round(self, number: int) -> None:
        """New plans, three kills at random moments in random order, and the end of every plan."""
        plans = [fan(f"r{number}-p{plan}", self.size.tasks) for plan in range(self.size.plans)]
        await asyncio.gather(*(submit(self.voice, self.ledger, plan) for plan in plans))
        for kill in self.dice.sample(KILLS, k=len(KILLS)):
            share = self.dice.randint(5, self.size.plans * self.size.tasks // 2)
            await self._more_acknowledged(share)
            await self._kill(kill)
        for plan in plans:
            await self._ended(plan["id"])

    async def _more_acknowledged(self, count: int) -> None:
        target = len(self.ledger.entries) + count
        await self._until(lambda: len(self.ledger.entries) >= target)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            code = self.service.exit_code
            assert code is None, f"it ended with {code}:\n{self.service.output[-4000:]}"
            in_flight = sum(len(worker.held) for worker in self.workers)
            self.most_in_flight = max(self.most_in_flight, in_flight)
            await asyncio.sleep(POLL_S)

    async def _kill(self, what: str) -> None:
        service, voice = self.service, self.voice
        if what == "nats":
            service.kill_nats()
        else:
            if what == "both" and self.dice.random() < 0.5:
                service.kill_nats()  # the other half of the time it dies of its parent's death
            service.kill()
            service.launch()
        at = time.monotonic()
        await self._until(lambda: voice.newest_asked > at)
        self.recoveries.append((what, time.monotonic() - at))

    async def _ended(self, plan_id: str) -> None:
        async with httpx.AsyncClient() as client:
            while True:
                plan = await self._shown(client, plan_id)
                if plan and plan["finished_at"]:
                    assert plan["status"] == "COMPLETED", plan
                    return
                await asyncio.sleep(5 * POLL_S)

    async def _shown(self, client: httpx.AsyncClient, plan_id: str) -> dict[str, Any]:
        try:
            answer = await client.get(f"{self.service.url}/v1/plans/{plan_id}", timeout=10)
        except (httpx.TransportError, httpx.UnsupportedProtocol):
            return {}
        return answer.json() if answer.status_code == httpx.codes.OK else {}

    @asynccontextmanager
    async def work(self):  # noqa: ANN201
        """The workers work; one that dies of an assertion ends the test."""
        async with asyncio.TaskGroup() as group:
            working = [group.create_task(worker.work()) for worker in self.workers]
            yield
            for task in working:
                task.cancel()
        await self.voice.close()


async def executions_shown(url: str, plan_ids: set[str]) -> dict[TaskName, list[Attempt]]:
    """Every execution of the plans as the API tells it, in the shape of `attempts_in`."""
    shown: dict[TaskName, list[Attempt]] = {}
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        for plan_id in plan_ids:
            after: str | None = None
            while True:
                asked = {"plan_id": plan_id, "limit": "200"} | ({"after": after} if after else {})
                answer = (await client.get("/v1/executions", params=asked)).json()
                for item in answer["items"]:
                    # The newest claim comes first; its sequence is not shown.
                    shown.setdefault((plan_id, item["task_id"]), []).insert(
                        0, Attempt(item["attempt"], item["owner"], 0, item["status"])
                    )
                after = answer["next"]
                if after is None:
                    break
    return shown


async def assert_executions_agree(url: str, attempts: dict[TaskName, list[Attempt]]) -> None:
    """The API's executions are exactly the log's attempts."""
    told = {
        name: [msgspec.structs.replace(attempt, claimed=0) for attempt in each]
        for name, each in attempts.items()
    }
    shown = await executions_shown(url, {plan_id for plan_id, _ in attempts})
    assert shown == told


@pytest.mark.timeout(1800)
async def test_nothing_acknowledged_is_lost_whatever_is_killed(
    start_service: Callable[..., ServiceProcess], *, long_faults: bool
) -> None:
    size = LONG if long_faults else SHORT
    seed = int(os.environ.get("HOLDFAST_TEST_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"HOLDFAST_TEST_SEED={seed}")  # noqa: T201 - shown when it fails
    service = start_service(roles="api,daemons")
    siege = Siege(service, size, seed)
    async with siege.work():
        for number in range(size.rounds):
            async with asyncio.timeout(size.round_s):
                await siege.round(number)
    facts = await read_log_async(service.nats_url)
    siege.ledger.assert_in(facts)
    assert_completed_once(facts)
    attempts = attempts_in(facts)
    await assert_executions_agree(service.url, attempts)
    code, said = await asyncio.to_thread(
        run_holdfast, "rebuild", "--verify", data_dir=str(service.data_dir), nats__port="0"
    )
    assert (code, "equal:" in said) == (0, True), said
    _report(siege, attempts)


def _report(siege: Siege, attempts: dict[TaskName, list[Attempt]]) -> None:
    times = {
        kill: sorted(took for what, took in siege.recoveries if what == kill) for kill in KILLS
    }
    for kill, took in times.items():
        shown = ", ".join(f"{each:.2f}" for each in took)
        print(f"recovered from the loss of {kill} within (s): {shown}")  # noqa: T201
    lost = sum(attempt.status == "lost" for each in attempts.values() for attempt in each)
    print(  # noqa: T201
        f"{len(attempts)} tasks, at most {siege.most_in_flight} in flight, {lost} lost leases, "
        f"{len(siege.ledger.entries)} writes acknowledged, {siege.voice.unanswered} not answered"
    )
