"""Clients that take nothing, or are not there any more, end in time and harm no other client.

A frozen client is a socket without a reader. A vanished one drops every segment that arrives,
before its kernel can acknowledge it (a socket filter that lets nothing through): as if a cable had
been pulled, with no goodbye and no reset.
"""

import asyncio
import ctypes
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator

import msgspec
import psutil
import pytest

from projections.feed.limits import LIMITS
from service.http.sse_wire import GOODBYE_S, ROOM_BYTES, VANISHED_S
from tests.conftest import PrivateServer
from tests.faults.service_process import ServiceProcess, until
from tests.faults.sse_client import Ages, Connection, Story, ask, begun
from tests.faults.sse_load import Writer, opened
from tests.integration.sse_world import open_raw
from tests.scrape import scraped

pytestmark = pytest.mark.faults

VANISHED = 5
HEARTBEAT_S = 1
MARGIN_S = 10.0  # a busy machine
SO_ATTACH_FILTER = 26
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0 bytes of every segment
LARGE_BYTES, WAITING = 900_000, 200
HISTORY_EVENTS, HISTORY_BYTES = 6_000, 2_000  # 12 MB, more than any socket holds


class Size(msgspec.Struct, frozen=True):
    """How many clients, the load they see, how long without the frozen ones, and what is allowed.

    ``ratio`` bounds the healthy clients' 99th percentile against that without the frozen ones;
    below ``floor_s`` it is noise. A client that waits for a frozen one waits for as long as that is
    borne, so the short form, which runs beside other tests, may call much of it noise.
    """

    frozen: int
    healthy: int
    rate: float
    for_s: float
    ratio: float
    floor_s: float


SHORT = Size(frozen=10, healthy=90, rate=30, for_s=5, ratio=3, floor_s=1)
LONG = Size(frozen=100, healthy=900, rate=10, for_s=20, ratio=1.5, floor_s=0.05)


class Trouble(msgspec.Struct, frozen=True):
    """A service, and the clients of it that have vanished at ``since``."""

    service: ServiceProcess
    nats: PrivateServer
    vanished: list[socket.socket]
    since: float


def vanish(client: socket.socket) -> None:
    """Let nothing that arrives at this socket be seen, not even by its kernel."""
    program = ctypes.create_string_buffer(DROP_ALL)
    filters = struct.pack("HL", 1, ctypes.addressof(program))
    client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)


def open_and_vanish(url: str) -> socket.socket:
    """A client of a quiet stream, that has its hello and is gone."""
    host, port = url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)))
    asked = f"GET /v1/events?types=plan.cancelled HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
    client.sendall(asked.encode())
    said = b""
    while b"caught_up" not in said:
        said += client.recv(4096)
    vanish(client)
    return client


@pytest.fixture(scope="module", autouse=True)
def trouble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    """One service for this file; who vanishes is missed only after half a minute, so at once."""
    folder = tmp_path_factory.mktemp("trouble")
    nats = PrivateServer(folder / "nats")
    settings = {"sse__heartbeat_s": str(HEARTBEAT_S), "roles": "api"}
    service = ServiceProcess(folder / "data", nats_url=nats.url, **settings)
    try:
        service.start()
        asyncio.run(write_history(nats.url))
        clients = [open_and_vanish(service.url) for _ in range(VANISHED)]
        yield Trouble(service, nats, clients, time.monotonic())
        for client in clients:
            client.close()
    finally:
        service.stop()
        nats.stop()


def connections(service: ServiceProcess) -> int:
    return int(scraped(service.url).sum("agent_sse_connections_current"))


def pushed(service: ServiceProcess) -> int:
    return int(scraped(service.url).sum("agent_sse_push_attempt_total"))


async def write_history(nats_url: str) -> None:
    """More than any socket holds, for those who ask for all of the log."""
    async with opened(nats_url) as log:
        writer = Writer(log, "history")
        await writer.begin()
        for _ in range(HISTORY_EVENTS // 500):
            await writer.write(500, HISTORY_BYTES)


def slow_consumers(service: ServiceProcess) -> int:
    return int(scraped(service.url).sum("agent_sse_push_fail_total", reason="slow_consumer"))


# -- frozen clients -----------------------------------------------------------------------------


async def freeze(url: str, count: int) -> list[socket.socket]:
    """Clients that ask for all of the log and read nothing of it."""
    return [await open_raw(url, "/v1/events?after=0") for _ in range(count)]


async def healthy_clients(url: str, count: int) -> list[Connection]:
    connections = [await ask(url, "/v1/events?plan_id=busy", Story()) for _ in range(count)]
    for connection in connections:
        assert await begun(connection) == 200
        assert await connection.told_or_ended(connection.caught_up, 30)
    return connections


class Watch:
    """The service's memory and its frozen clients' end, sampled while something else goes on."""

    def __init__(self, service: ServiceProcess, frozen: int) -> None:
        self._service = service
        self._process = psutil.Process(service.pid)
        self._frozen = frozen
        self.start_bytes = self.most_bytes = self._process.memory_info().rss
        self.ended_s = 0.0

    async def until_all_have_ended(self) -> None:
        began = time.monotonic()
        ended = 0
        while ended < self._frozen:
            assert time.monotonic() - began < LIMITS.slow_s + 3 * MARGIN_S, "they stay for ever"
            await asyncio.sleep(0.1)
            ended = await asyncio.to_thread(slow_consumers, self._service)
            self.most_bytes = max(self.most_bytes, self._process.memory_info().rss)
        self.ended_s = time.monotonic() - began


async def ages_while(connections: list[Connection], until_done: "asyncio.Task[None]") -> Ages:
    """How old events are when they reach these clients, until a task is done."""
    ages = Ages()
    for connection in connections:
        connection.story.on_event = ages.note
    await until_done
    for connection in connections:
        connection.story.on_event = None
        connection.story.check()
    return ages


@pytest.mark.timeout(300)
async def test_frozen_clients_end_in_time_and_the_healthy_ones_do_not_notice(
    trouble: Trouble, record_property: Callable[[str, object], None], *, long_faults: bool
) -> None:
    size = LONG if long_faults else SHORT
    service = trouble.service
    async with opened(trouble.nats.url) as log:
        writer = Writer(log)
        await writer.begin()
        healthy = await healthy_clients(service.url, size.healthy)
        await writer.write_steadily(size.rate, 1)  # warm
        over = asyncio.Event()
        loading = asyncio.create_task(write_until(over, writer, size.rate))
        quiet = await ages_while(healthy, asyncio.create_task(asyncio.sleep(size.for_s)))
        watch = Watch(service, size.frozen)
        frozen = await freeze(service.url, size.frozen - 1)
        late = await ask(service.url, "/v1/events?after=0", Story(0))
        late.transport.pause_reading()
        ending = asyncio.create_task(watch.until_all_have_ended())
        troubled = await ages_while(healthy, ending)
        late.transport.resume_reading()  # not before: who reads in time is not ended
        over.set()
        await loading
        report(record_property, quiet, troubled, watch)
        await assert_told_and_whole(service, late, writer)
        await assert_all_told_all(healthy, writer)
    until(
        lambda: connections(service) <= VANISHED,
        GOODBYE_S + MARGIN_S,
        "no client is counted any more",
    )
    assert_named_in_the_log(service, frozen)
    for client in frozen:
        client.close()
    assert watch.ended_s < LIMITS.slow_s + MARGIN_S
    # What is kept for many (pages of the log), and what each may have waiting.
    allowed = 2 * HISTORY_EVENTS * HISTORY_BYTES + size.frozen * 5 * ROOM_BYTES
    assert watch.most_bytes - watch.start_bytes < allowed
    limit_s = max(size.ratio * quiet.percentile(99), size.floor_s)
    assert troubled.percentile(99) < limit_s, "the healthy clients have noticed"


async def test_many_that_wait_for_a_large_event_hold_it_once(
    start_service: Callable[..., ServiceProcess], private_nats: PrivateServer
) -> None:
    service = await asyncio.to_thread(start_service, nats_url=private_nats.url, roles="api")
    async with opened(private_nats.url) as log:
        writer = Writer(log)
        await writer.begin()
        for _ in range(3):
            await writer.write(1, LARGE_BYTES)
    process = psutil.Process(service.pid)
    before = process.memory_info().rss
    frozen = await freeze(service.url, WAITING)
    # Each has been written the first of them, which its socket cannot take.
    while await asyncio.to_thread(pushed, service) < 3 * WAITING:
        await asyncio.sleep(0.05)
    grown = process.memory_info().rss - before
    for client in frozen:
        client.close()
    print(f"{WAITING} frozen clients of a large event: {grown / 1e6:.1f} MB")  # noqa: T201
    assert grown < WAITING * LARGE_BYTES / 4


async def write_until(over: asyncio.Event, writer: Writer, rate: float) -> None:
    """Not cancelled during an append, of which the writer would not know."""
    while not over.is_set():
        await writer.write_steadily(rate, 0.2)


async def assert_told_and_whole(service: ServiceProcess, late: Connection, writer: Writer) -> None:
    """A client that wakes up just in time reads why it was ended, and goes on where it was."""
    story = late.story
    async with asyncio.timeout(GOODBYE_S + MARGIN_S):
        while not story.told("closed") and not late.ended.is_set():
            await asyncio.sleep(0.01)
    story.check()
    late.hang_up("close")
    assert story.told("closed")[-1].data == {"reason": "slow_consumer"}
    again = await ask(service.url, "/v1/events", story, cursor=story.cursor)
    assert await again.told_or_ended(again.caught_up, 30)
    last = await writer.write(1)
    async with asyncio.timeout(20):
        while story.sequences[-1] != last:
            await asyncio.sleep(0.01)
    story.check()
    again.hang_up("close")
    # The log has no holes here: whole is whole.
    assert story.sequences == list(range(1, last + 1))


async def assert_all_told_all(healthy: list[Connection], writer: Writer) -> None:
    last = await writer.write(1)
    async with asyncio.timeout(20):
        while any(connection.story.sequences[-1] != last for connection in healthy):
            await asyncio.sleep(0.01)
    for connection in healthy:
        story = connection.story
        story.check()
        assert story.sequences == list(range(story.sequences[0], last + 1))
        connection.hang_up("close")


def assert_named_in_the_log(service: ServiceProcess, frozen: list[socket.socket]) -> None:
    """One line for each, with who it was, how far it had got, and why it was ended."""
    lines = [line for line in service.output.splitlines() if "sse_push_failed" in line]
    for client in frozen:
        port = client.getsockname()[1]
        mine = [line for line in lines if re.search(rf"127\.0\.0\.1:{port}\b", line)]
        assert len(mine) == 1, f"{len(mine)} lines about {port}"
        assert "slow_consumer" in mine[0]
        assert re.search(r"cursor\W+\d+", mine[0]), mine[0]


def report(
    record_property: Callable[[str, object], None], quiet: Ages, troubled: Ages, watch: Watch
) -> None:
    grown = (watch.most_bytes - watch.start_bytes) / 1e6
    for name, value in {
        "quiet_p50_s": quiet.percentile(50),
        "quiet_p99_s": quiet.percentile(99),
        "troubled_p50_s": troubled.percentile(50),
        "troubled_p99_s": troubled.percentile(99),
        "frozen_ended_s": watch.ended_s,
        "grown_mb": grown,
    }.items():
        print(f"{name} {value:.4g}")  # noqa: T201
        record_property(name, value)


# -- vanished peers -----------------------------------------------------------------------------


async def test_a_peer_that_vanishes_while_much_is_sent_is_a_slow_consumer(
    trouble: Trouble,
) -> None:
    """It is not waited for until its kernel is given up: what it has waiting is memory."""
    service = trouble.service
    before = slow_consumers(service)
    client = await open_raw(service.url, "/v1/events?after=0", receive_buffer=65_536)
    await asyncio.get_running_loop().sock_recv(client, 1_000)
    vanish(client)
    began = time.monotonic()
    while await asyncio.to_thread(slow_consumers, service) == before:
        assert time.monotonic() - began < LIMITS.slow_s + MARGIN_S
        await asyncio.sleep(0.1)
    client.close()


@pytest.mark.timeout(120)
def test_connections_of_vanished_peers_are_closed_in_time(trouble: Trouble) -> None:
    """Nothing happens on their streams but pings, which are not acknowledged."""
    service = trouble.service
    bound_s = VANISHED_S + 2 * HEARTBEAT_S + MARGIN_S
    until(
        lambda: connections(service) == 0,
        # The client of the test before may still be having its goodbye.
        max(GOODBYE_S + MARGIN_S, trouble.since + bound_s - time.monotonic()),
        "vanished clients are ended",
    )
    print(f"ended after {time.monotonic() - trouble.since:.1f} s at most")  # noqa: T201
    mine = {client.getsockname()[1] for client in trouble.vanished}
    held = {
        each.raddr.port for each in psutil.Process(service.pid).net_connections("tcp") if each.raddr
    }
    assert not mine & held, "a socket of theirs is still open"
