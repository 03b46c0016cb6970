"""However a client leaves the event stream, nothing of it stays.

The instance runs in this process, so that its tasks and objects can be counted beside its files.
"""

import asyncio
import gc
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from projections.feed.client import Client
from service.app import Instance
from service.http.sse_wire import SseWire
from streams.plan.events import Finished, Submitted, TaskSpec
from tests.conftest import PrivateServer
from tests.faults.open_files import files_open
from tests.faults.sse_client import ANSWER_S, Connection, Story, ask, begun, reset
from tests.faults.sse_load import Writer
from tests.integration.sse_world import serving, write

pytestmark = pytest.mark.faults

SHORT, LONG = 500, 5_000
TOGETHER = 40
LOOKS = 3  # so often the same: it is at rest
LOG_EVENTS = 2_000
EVENT_BYTES = 2_000


@pytest.fixture
async def instance(private_nats: PrivateServer, tmp_path: Path) -> AsyncIterator[Instance]:
    """An instance with 4 MB in its log, most of it older than its ring, and a plan that ended."""
    async with serving(private_nats.url, tmp_path / "one", buffer_events=50) as instance:
        writer = Writer(instance.core.log)
        await writer.begin()
        for _ in range(LOG_EVENTS // 500):
            await writer.write(500, EVENT_BYTES)
        await write(
            instance.core, "over", None, 0,
            Submitted(tasks=(TaskSpec(id="t", kind="outside"),)), Finished(status="CANCELLED"),
        )  # fmt: skip
        yield instance


class Held(msgspec.Struct, frozen=True):
    """What a process and its feed hold on behalf of clients."""

    files: int
    tasks: int
    connections: int
    admitted: int
    clients: int
    wires: int
    shown: float

    def within(self, other: "Held") -> bool:
        """Whether this is no more of anything."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return all(mine <= others for mine, others in pairs)


async def held(instance: Instance) -> Held:
    gc.collect()
    objects = gc.get_objects()
    feed = instance.core.feed
    return Held(
        files=files_open(os.getpid()),
        tasks=len(asyncio.all_tasks()),
        connections=feed.connections,
        admitted=feed.admitted,
        clients=sum(isinstance(each, Client) for each in objects),
        wires=sum(isinstance(each, SseWire) for each in objects),
        shown=await shown(instance, "agent_sse_connections_current"),
    )


async def shown(instance: Instance, name: str) -> float:
    """A metric without labels, as a scraper sees it."""
    async with httpx.AsyncClient(base_url=instance.http_url) as client:
        text = (await client.get("/metrics")).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


# -- the manners --------------------------------------------------------------------------------


async def talk(url: str, path: str, cursor: int | None = None) -> Connection:
    """A client that has the first bytes of its answer."""
    connection = await ask(url, path, Story(cursor), cursor=cursor)
    await begun(connection)
    return connection


async def until_caught_up_and_close(url: str) -> None:
    connection = await talk(url, "/v1/events")
    await connection.told_or_ended(connection.caught_up, ANSWER_S)
    connection.hang_up("close")
    assert connection.status == 200


async def reset_at_once(url: str) -> None:
    (await talk(url, "/v1/events?types=task.completed")).hang_up("reset")


async def half_close_and_wait(url: str) -> None:
    connection = await talk(url, "/v1/events?plan_id=busy")
    connection.hang_up("half-close")
    async with asyncio.timeout(ANSWER_S):
        await connection.ended.wait()


async def drop_while_replaying(url: str) -> None:
    connection = await talk(url, "/v1/events", 0)
    connection.events_left = 40
    connection.manner = "reset"
    async with asyncio.timeout(ANSWER_S):
        await connection.ended.wait()


async def stop_reading_while_replaying_and_drop(url: str) -> None:
    connection = await talk(url, "/v1/plans/busy/events")
    connection.transport.pause_reading()
    await asyncio.sleep(0.02)
    connection.hang_up("reset")


async def drop_before_the_answer(url: str) -> None:
    (await ask(url, "/v1/events", Story(1), cursor=1)).hang_up("reset")


async def ask_and_close_before_the_answer(url: str) -> None:
    (await ask(url, "/v1/plans/busy/events", Story())).hang_up("close")


async def ask_by_half(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: ")
    await writer.drain()
    reset(writer.get_extra_info("socket"))
    writer.transport.abort()


async def follow_a_plan_to_its_end_and_come_back(url: str) -> None:
    story = Story()
    connection = await ask(url, "/v1/plans/over/events", story)
    async with asyncio.timeout(ANSWER_S):
        # The plan is over, so the server ends the answer; the connection may serve another.
        while not story.told("closed"):
            assert not connection.ended.is_set(), story.signals
            await asyncio.sleep(0.005)
    connection.hang_up("close")
    again = await talk(url, "/v1/plans/over/events", story.cursor)
    again.hang_up("close")
    assert again.status == 204


async def refused(url: str, path: str, status: int) -> None:
    connection = await talk(url, path)
    connection.hang_up("close")
    assert connection.status == status


VISITS = (
    until_caught_up_and_close,
    reset_at_once,
    half_close_and_wait,
    drop_while_replaying,
    stop_reading_while_replaying_and_drop,
    drop_before_the_answer,
    ask_and_close_before_the_answer,
    ask_by_half,
    follow_a_plan_to_its_end_and_come_back,
    lambda url: refused(url, "/v1/events?after=x", 400),
    lambda url: refused(url, "/v1/events?types=task.nothing", 400),
    lambda url: refused(url, "/v1/plans/nobody/events", 404),
)


@pytest.mark.timeout(300)
async def test_files_tasks_and_connections_return_to_where_they_were(
    instance: Instance, capsys: pytest.CaptureFixture[str], *, long_faults: bool
) -> None:
    for visit in VISITS:  # the first of each may make what stays for good
        await visit(instance.http_url)
    before = await at_rest(instance, None)
    slots = asyncio.Semaphore(TOGETHER)
    luck = random.Random(1)

    async def one(number: int) -> None:
        async with slots:
            await VISITS[number % len(VISITS)](instance.http_url)

    order = list(range(LONG if long_faults else SHORT))
    luck.shuffle(order)
    async with asyncio.TaskGroup() as group:
        for number in order:
            group.create_task(one(number))
    after = await at_rest(instance, before)
    assert after.within(before), f"{after}, and before {before}"
    assert "Traceback" not in capsys.readouterr().out, "a client that leaves is no error"


async def at_rest(instance: Instance, wanted: Held | None) -> Held:
    """What is held once nothing moves any more, or once it is no more than is wanted."""
    looks = [await held(instance)]
    end = asyncio.get_running_loop().time() + 15
    while asyncio.get_running_loop().time() < end:
        if looks[-1].within(wanted) if wanted else looks[-LOOKS:] == [looks[-1]] * LOOKS:
            break
        await asyncio.sleep(0.3)
        looks.append(await held(instance))
    return looks[-1]


async def test_of_many_at_once_as_many_get_in_as_are_let_in(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    """The others get a Retry-After, and are admitted once a client has left."""
    async with serving(private_nats.url, tmp_path / "one", max_connections=20) as instance:
        for _ in range(3):
            connections = await asyncio.gather(
                *(talk(instance.http_url, "/v1/events") for _ in range(60))
            )
            statuses = [connection.status for connection in connections]
            assert (statuses.count(200), statuses.count(503)) == (20, 40)
            assert instance.core.feed.connections == 20
            for connection in connections:
                if connection.status == 503:
                    assert b"retry-after: " in connection.head.lower()
                    assert b'"code":"unavailable"' in connection.body
                connection.hang_up("reset")
            async with asyncio.timeout(10):
                while instance.core.feed.admitted:
                    await asyncio.sleep(0.01)
