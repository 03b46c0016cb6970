"""Plans are forgotten on a cluster of three, by a user that may only purge, on every instance."""

import asyncio
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from streams.jetstream.permissions import RETENTION_PUBLISHES, SERVICE_HEARS, SERVICE_PUBLISHES
from tests.cluster.nats_cluster import NatsCluster
from tests.faults.service_process import ServiceProcess, run_holdfast
from tests.integration.nats_jwt import Operator, Party, creds_file
from tests.waiting import answered, until

pytestmark = pytest.mark.faults

PLANS = 1_100  # so many that the log's beginning is removed in one purge
SUBMITTERS = 20
AT_ONCE = "0.000001"  # days
SERVICE: dict[str, Any] = {
    "pub": {"allow": [*SERVICE_PUBLISHES]},
    "sub": {"allow": [*SERVICE_HEARS]},
}
RETENTION: dict[str, Any] = {
    "pub": {"allow": [*RETENTION_PUBLISHES]},
    "sub": {"allow": ["_INBOX.>"]},
}


@pytest.fixture
def instances() -> Iterator[list[ServiceProcess]]:
    """What a test has started ends with it."""
    started: list[ServiceProcess] = []
    yield started
    for instance in started:
        instance.stop()


async def submit_all(url: str) -> None:
    """Submit the plans, and wait until the last of them has ended."""
    gate = asyncio.Semaphore(SUBMITTERS)
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:

        async def one(number: int) -> None:
            tasks = [{"id": "a", "kind": "echo"}, {"id": "b", "kind": "echo", "depends_on": ["a"]}]
            async with gate:
                answer = await client.post("/v1/plans", json={"id": f"p{number}", "tasks": tasks})
            assert answer.status_code == 201

        async def unfinished() -> bool:
            answer = await client.get("/v1/plans", params={"status": "RUNNING"})
            return bool(answer.json()["items"])

        await asyncio.gather(*(one(number) for number in range(PLANS)))
        await answered(lambda: _not(unfinished()), "all plans have ended", 120)


async def _not(question: Awaitable[bool]) -> bool:
    return not await question


def plans_of(client: httpx.Client) -> set[str]:
    return {each["plan_id"] for each in client.get("/v1/plans").json()["items"]}


@pytest.mark.timeout(240)
async def test_every_instance_drops_what_one_of_them_forgets(
    tmp_path: Path, instances: list[ServiceProcess]
) -> None:
    operator = Operator()
    service = creds_file(tmp_path / "service.creds", operator.account, Party("user", 4), **SERVICE)
    purger = creds_file(tmp_path / "purger.creds", operator.account, Party("user", 5), **RETENTION)
    cluster = NatsCluster(tmp_path, operator.configuration)
    try:
        await cluster.start()
        more: dict[str, Any] = {"nats__creds_file": str(service), "nats__replicas": "3"}
        forgetting = {
            "retention__finished_days": AT_ONCE,
            "retention__archive_dir": str(tmp_path / "archive"),
            "nats__retention_creds_file": str(purger),
        }
        for number, settings in ((2, more), (1, more | forgetting)):
            url = cluster.urls_for(number)
            folder = tmp_path / f"data-{number}"
            instances.append(ServiceProcess(folder, nats_url=url, **settings).start())
            if number == 2:
                await submit_all(instances[0].url)
        await forget_and_compare(cluster, instances, tmp_path, more)
    finally:
        for instance in instances:
            instance.stop()
        await cluster.stop()


async def forget_and_compare(
    cluster: NatsCluster, instances: list[ServiceProcess], folder: Path, more: dict[str, Any]
) -> None:
    two, one = (httpx.Client(base_url=each.url, timeout=30) for each in instances)
    with one, two:
        for client in (one, two):
            until(
                lambda client=client: plans_of(client) == set(),
                within_s=120,
                what="all plans are forgotten",
            )

        def exported() -> tuple[int, int]:
            code, said = run_holdfast(
                *("export", "--plan", "p1"),
                data_dir=str(instances[0].data_dir),
                nats__url=cluster.urls_for(2),
                **more,
            )
            return code, said.count("\n")

        until(lambda: exported() == (0, 1), within_s=60, what="only that it was forgotten is left")
        (purge,) = [line for line in instances[1].output.splitlines() if "facts_removed" in line]
        assert f'"plans":{PLANS},' in purge
        assert '"below":' in purge
        code, said = run_holdfast("archive", "verify", str(folder / "archive"))
        assert (code, f"{PLANS:,}" in said) == (0, True), said
        for instance in instances:
            code, said = run_holdfast(
                *("rebuild", "--verify"),
                data_dir=str(instance.data_dir),
                nats__url=cluster.urls_for(1),
                **more,
            )
            assert (code, "equal: " in said) == (0, True), said
            assert "log_facts_missing" not in instance.output
