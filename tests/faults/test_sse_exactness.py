"""Whatever breaks, each client of the event stream sees exactly the filtered log, each event once.

Clients break off at random and move between two instances on one log, which are killed and started
again under them, while the log grows. Afterwards each client's sequences are compared with the log
as nats-py reads it.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from tests.conftest import PrivateServer
from tests.faults.log_witness import Message, read_messages
from tests.faults.service_process import ServiceProcess
from tests.faults.sse_fleet import Wanderer
from tests.faults.sse_load import Load, opened

pytestmark = pytest.mark.faults

READY_S = 60.0
ARRIVE_S = 60.0


class Size(msgspec.Struct, frozen=True):
    """How much of it: clients, events, how many of them per second at most, and kills."""

    clients: int
    events: int
    rate: float
    kills: int


SHORT = Size(clients=60, events=8_000, rate=1_000, kills=2)
LONG = Size(clients=200, events=50_000, rate=1_000, kills=8)


async def until_ready(service: ServiceProcess) -> None:
    """Wait for an instance, and leave the loop to the clients meanwhile."""
    async with asyncio.timeout(READY_S):
        while not service.url:
            assert service.exit_code is None, service.output[-4000:]
            await asyncio.sleep(0.02)


async def kill_now_and_then(
    load: Load, services: list[ServiceProcess], luck: random.Random, size: Size
) -> list[float]:
    """Kill one instance after the other while the load goes on; how long each was away."""
    away: list[float] = []
    for number in range(size.kills):
        part = size.events // (size.kills + 1)
        await load.written_at_least(part * number + luck.randrange(part // 2, part))
        service = services[number % len(services)]
        service.kill()
        began = time.monotonic()
        await asyncio.sleep(luck.uniform(0, 0.5))
        service.launch()
        await until_ready(service)
        away.append(time.monotonic() - began)
    return away


@asynccontextmanager
async def wandering(fleet: list[Wanderer]) -> AsyncIterator[None]:
    """The clients wander; one that finds a fault ends the test at once."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.wander()) for client in fleet]
        yield
        for task in tasks:
            task.cancel()


async def until_all_have_seen(fleet: list[Wanderer], log: list[Message]) -> None:
    """Wait until each live stream has brought as many events as are due, or for some seconds.

    Too few are found by the comparison afterwards, which can say which.
    """
    end = time.monotonic() + ARRIVE_S
    for client in fleet:
        due = None
        while time.monotonic() < end and (due is None or client.seen < due):
            due = len(client.journeys[-1].due(log))
            # What is due takes long to find; the others go on.
            await asyncio.sleep(0.2 if client.seen < due else 0)


@pytest.mark.timeout(900)
async def test_each_client_sees_exactly_the_filtered_log_whatever_is_killed(
    new_service: Callable[..., ServiceProcess], private_nats: PrivateServer, *, long_faults: bool
) -> None:
    size = LONG if long_faults else SHORT
    seed = int(os.environ.get("HOLDFAST_TEST_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"HOLDFAST_TEST_SEED={seed}")  # noqa: T201 - shown when it fails
    luck = random.Random(seed)
    # One instance with little room, so that handing over happens all the time, and one as it comes.
    tight = {"sse__buffer_events": "100", "sse__replay_batch_size": "70", "sse__heartbeat_s": "1"}
    services = [
        new_service(nats_url=private_nats.url, roles="api", **settings) for settings in (tight, {})
    ]
    for service in services:
        service.launch()
    await asyncio.gather(*(until_ready(service) for service in services))
    async with opened(private_nats.url) as log:
        load = Load(log, luck, size.events, size.rate)
        fleet = [
            Wanderer(
                random.Random(seed + number + 1),
                lambda: [service.url for service in services],
                load.plans,
                lambda: load.last,
            )
            for number in range(size.clients)
        ]
        began = time.monotonic()
        loading = asyncio.create_task(load.run())
        await load.written_at_least(size.events // 20)  # so that there are plans to follow
        async with wandering(fleet):
            killing = asyncio.create_task(kill_now_and_then(load, services, luck, size))
            await asyncio.gather(loading, killing)
            took_s = time.monotonic() - began
            for client in fleet:
                client.settled = True
            facts = await read_messages(private_nats.url)
            await until_all_have_seen(fleet, facts)
        # A goodbye in peace: what was repeated or came late would show now.
        await asyncio.gather(*(client.arrive() for client in fleet))
    assert facts[-1].sequence == load.last
    told = sum(journey.check(facts) for client in fleet for journey in client.journeys)
    connects = sum(client.connects for client in fleet)
    journeys = sum(len(client.journeys) for client in fleet)
    print(  # noqa: T201
        f"{len(facts)} events in {took_s:.1f} s; {size.clients} clients on {journeys} journeys "
        f"over {connects} connections were told {told} events, each once; killed instances "
        f"were away for (s): {', '.join(f'{each:.2f}' for each in killing.result())}"
    )
    assert told > size.events, "the clients hardly looked"
    assert all(len(client.instances) > 1 for client in fleet), "one client never moved"
