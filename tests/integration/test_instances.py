"""Several instances on one log: they share the work, see each other's writes and hardly collide."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from streams.plan.events import Claimed
from tests.conftest import PrivateServer
from tests.faults.crew import Ledger, Voice, Worker, fan, submit
from tests.faults.log_witness import assert_completed_once, attempts_in, read_log_async
from tests.faults.service_process import ServiceProcess, run_holdfast
from tests.scrape import scraped
from tests.waiting import answered

WORKERS = 9
HOLD = 5
END_S = 60

Start = Callable[[int], list[ServiceProcess]]


@pytest.fixture
def start_instances(tmp_path: Path, private_nats: PrivateServer) -> Iterator[Start]:
    """Starts so many instances on one nats-server, all at once; they are ready on return."""
    instances: list[ServiceProcess] = []

    def start(count: int) -> list[ServiceProcess]:
        for number in range(count):
            instances.append(ServiceProcess(tmp_path / f"data-{number}", nats_url=private_nats.url))
            instances[-1].launch()
        for instance in instances:
            instance.await_ready()
        return instances

    yield start
    for instance in instances:
        instance.stop()


@asynccontextmanager
async def crew(instances: list[ServiceProcess], seed: int = 7) -> AsyncGenerator[Ledger]:
    """Workers that each talk to another instance, for as long as the block lasts."""
    ledger, voices = Ledger(), [Voice(lambda url=each.url: url) for each in instances]
    workers = [
        Worker(f"w{n}", voices[n % len(voices)], ledger, random.Random(seed + n), HOLD)
        for n in range(WORKERS)
    ]
    async with asyncio.TaskGroup() as group:
        working = [group.create_task(worker.work()) for worker in workers]
        yield ledger
        for task in working:
            task.cancel()
    for voice in voices:
        await voice.close()


async def submit_everywhere(
    instances: list[ServiceProcess], plans: int, tasks: int, ledger: Ledger
) -> list[str]:
    """As many plans for the executors as for outside workers, each to the next instance."""
    ids: list[str] = []
    for number in range(plans):
        instance = instances[number % len(instances)]
        voice = Voice(lambda url=instance.url: url)
        for kind in ("outside", "echo"):
            ids.append(f"{kind}-{number}")
            await submit(voice, ledger, fan(ids[-1], tasks, kind))
        await voice.close()
    return ids


async def all_ended(url: str, plan_ids: list[str]) -> None:
    async with httpx.AsyncClient(base_url=url) as client:

        async def has_ended(plan_id: str) -> object:
            return (await client.get(f"/v1/plans/{plan_id}")).json().get("finished_at")

        for plan_id in plan_ids:
            await answered(partial(has_ended, plan_id), f"{plan_id} has ended", END_S)


@pytest.mark.timeout(120)
async def test_two_instances_share_the_work_and_close_each_plan_once(
    start_instances: Start,
) -> None:
    instances = await asyncio.to_thread(start_instances, 2)
    async with crew(instances) as ledger:
        plans = await submit_everywhere(instances, plans=3, tasks=50, ledger=ledger)
        for instance in instances:
            await all_ended(instance.url, plans)
    facts = await read_log_async(instances[0].nats_url)
    ledger.assert_in(facts)
    assert_completed_once(facts)
    attempts = attempts_in(facts)  # fails if an attempt has two claims, or two owners
    assert len(attempts) == 2 * 3 * 50
    claims = Counter(fact.origin.instance for fact in facts if isinstance(fact.event, Claimed))
    assert len(claims) == 2
    assert min(claims.values()) > 0.2 * sum(claims.values()), f"one did nearly all: {claims}"
    for instance in instances:
        code, said = await asyncio.to_thread(
            run_holdfast, "rebuild", "--verify", data_dir=str(instance.data_dir),
            nats__url=instance.nats_url,
        )  # fmt: skip
        assert (code, "equal:" in said) == (0, True), said


@pytest.mark.timeout(90)
def test_each_instance_answers_reads_of_the_others_writes(start_instances: Start) -> None:
    one, other = start_instances(2)
    with httpx.Client(base_url=one.url) as here, httpx.Client(base_url=other.url) as there:
        for number in range(20):
            plan = {"id": f"p{number}", "tasks": [{"id": "t", "kind": "outside"}]}
            seen = {"min_sequence": here.post("/v1/plans", json=plan).json()["sequence"]}
            assert there.get(f"/v1/plans/p{number}", params=seen).json()["status"] == "READY"
            claim = there.post("/v1/claims", json={"owner": "w", "kinds": ["outside"]}).json()
            (lease,) = claim["claims"]
            seen = {"min_sequence": lease["fencing_token"]}
            task = here.get(f"/v1/plans/p{number}/tasks/t", params=seen).json()
            assert (task["status"], task["owner"], task["attempt"]) == ("RUNNING", "w", 1)
            # The word of an owner counts whichever instance hears it.
            done = here.post(
                f"/v1/plans/p{number}/tasks/t/complete", json={"owner": "w", "attempt": 1}
            )
            seen = {"min_sequence": done.raise_for_status().json()["sequence"]}
            shown = there.get(f"/v1/plans/p{number}/tasks/t", params=seen).json()
            assert shown["status"] == "COMPLETED"
            assert [each["status"] for each in shown["executions"]] == ["completed"]
            here, there = there, here  # noqa: PLW2901 - each is once the one and once the other


def counted(instances: list[ServiceProcess], name: str) -> float:
    return sum(scraped(instance.url).sum(name) for instance in instances)


@pytest.mark.timeout(120)
async def test_three_instances_under_load_hardly_collide(start_instances: Start) -> None:
    instances = await asyncio.to_thread(start_instances, 3)
    async with crew(instances) as ledger:
        plans = await submit_everywhere(instances, plans=3, tasks=200, ledger=ledger)
        await all_ended(instances[0].url, plans)
    lost = counted(instances, "agent_task_claim_conflict_total")
    won = counted(instances, "agent_task_claim_success_total")
    facts = await read_log_async(instances[0].nats_url)
    assert_completed_once(facts)
    claims = sum(len(each) for each in attempts_in(facts).values())
    print(f"{won:.0f} claims, {lost:.0f} lost races: {lost / (lost + won):.1%}")  # noqa: T201
    assert won == claims, "each claim in the log was counted once"
    # Were each to claim what it sees first, two of three claims would be lost.
    assert lost / (lost + won) < 0.3
