"""A storm of clients that come back at once, and a server that closes all streams."""

import asyncio
import random
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.busy import stretch
from tests.conftest import PrivateServer
from tests.faults.api_probe import probing
from tests.faults.service_process import ServiceProcess
from tests.faults.sse_client import Connection, Run, Story, ask, begun
from tests.faults.sse_load import Writer, opened

pytestmark = pytest.mark.faults

SHORT_STORM, LONG_STORM = (150, 3_000), (1_000, 10_000)  # clients, events each of them is behind
SHORT_GOODBYE, LONG_GOODBYE = 200, 1_000
RETRY_MS = (1_000, 5_000)
CAUGHT_UP_S = 240.0

Start = Callable[..., ServiceProcess]


async def connected(url: str, count: int, story: Callable[[], Story]) -> list[Connection]:
    """So many clients of the whole log, all with the head of their answer."""
    connections: list[Connection] = []
    for _ in range(count):
        each = story()
        connections.append(await ask(url, "/v1/events", each, cursor=each.cursor))
    assert {await begun(connection) for connection in connections} == {200}
    return connections


async def all_caught_up(connections: list[Connection]) -> None:
    for connection in connections:
        arrived = await connection.told_or_ended(connection.caught_up, CAUGHT_UP_S)
        connection.story.check()
        assert arrived, "it was ended"


@pytest.mark.timeout(400)
async def test_a_storm_of_clients_catches_up_while_the_api_answers(
    start_service: Start,
    private_nats: PrivateServer,
    record_property: Callable[[str, object], None],
    *,
    long_faults: bool,
) -> None:
    count, behind = LONG_STORM if long_faults else SHORT_STORM
    luck = random.Random(3)
    service = await asyncio.to_thread(start_service, nats_url=private_nats.url, roles="api")
    async with opened(private_nats.url) as log:
        writer = Writer(log)
        await writer.begin()
        while await writer.write(1_000) < behind + 200:
            pass
        head = await writer.write(10)
        async with probing(service.url, "/v1/plans/busy") as quiet:
            connections = await connected(service.url, count, Story)
            await all_caught_up(connections)
            await asyncio.sleep(1)  # the probe's ground: clients are there, and nothing happens
        for connection in connections:
            connection.hang_up("reset")
        # Cursors differ by a little, as they do when a server has died under its clients.
        stories = [Run(head - behind - luck.randrange(100)) for _ in range(count)]
        begins = [story.cursor or 0 for story in stories]
        arriving = iter(stories)
        async with probing(service.url, "/v1/plans/busy") as storm:
            began = time.monotonic()
            connections = await connected(service.url, count, lambda: next(arriving))
            await all_caught_up(connections)
            took_s = time.monotonic() - began
        assert all(story.cursor == head for story in stories)
        assert not any(story.told("gap") for story in stories)
        # And they are live: what comes now reaches each of them, directly after the rest.
        head = await writer.write(3)
        async with asyncio.timeout(20):
            while any(story.cursor != head for story in stories):
                await asyncio.sleep(0.01)
        for connection in connections:
            connection.story.check()
            connection.hang_up("close")
    told = sum(head - begin for begin in begins)
    print(  # noqa: T201
        f"{count} clients resumed from {behind} events back within {took_s:.2f} s "
        f"({told / took_s:,.0f} events/s); API p99 {storm.p99_s * 1000:.0f} ms meanwhile, "
        f"worst {storm.worst_s * 1000:.0f} ms, {quiet.p99_s * 1000:.0f} ms before"
    )
    record_property("storm_s", took_s)
    record_property("storm_events_per_s", told / took_s)
    record_property("api_p99_s", storm.p99_s)
    record_property("api_p99_before_s", quiet.p99_s)
    assert (storm.bad, quiet.bad) == (0, 0)
    assert storm.good > 5
    assert storm.worst_s < 5 * stretch()


@pytest.mark.timeout(120)
async def test_a_server_that_ends_closes_each_stream_and_spreads_the_reconnects(
    start_service: Start, private_nats: PrivateServer, *, long_faults: bool
) -> None:
    count = LONG_GOODBYE if long_faults else SHORT_GOODBYE
    service = await asyncio.to_thread(start_service, nats_url=private_nats.url, roles="api")
    connections = await connected(service.url, count, Story)
    await all_caught_up(connections)
    began = time.monotonic()
    code = await asyncio.to_thread(service.terminate)
    took_s = time.monotonic() - began
    for connection in connections:
        async with asyncio.timeout(20):
            await connection.ended.wait()
        connection.story.check()
        last = connection.story.signals[-1]
        assert (last.name, last.data) == ("closed", {"reason": "shutting_down"})
    print(f"{count} clients were said goodbye to within {took_s:.2f} s")  # noqa: T201
    assert code == 0
    assert took_s < 10 * stretch()
    assert_spread([connection.retry_ms for connection in connections])


def assert_spread(retries: list[int | None]) -> None:
    """Each got its own `retry`, and they are spread."""
    told = sorted(retry for retry in retries if retry is not None)
    assert len(told) == len(retries)
    first, last = RETRY_MS
    assert first <= told[0] < first + 400 and last - 400 < told[-1] <= last  # noqa: PT018
    eighths = [first + (last - first) * eighth // 8 for eighth in range(9)]
    shares = [sum(a <= each < b for each in told) / len(told) for a, b in pairwise(eighths)]
    assert max(shares) < 0.25, f"an even spread has 0.125 in each: {shares}"
