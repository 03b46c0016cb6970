"""Too many connections, and connections that send badly: others notice nothing."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import psutil
import pytest

from tests.faults.conftest import StartService
from tests.faults.report import Report, percentile
from tests.faults.service_process import ServiceProcess
from tests.waiting import until

pytestmark = pytest.mark.faults

FILES = 256
RESERVED = 64
CROWD = 400
HEAD_S, BODY_S = 1.0, 2.0
END_WITHIN_S = 15.0  # the machine is shared
ANSWER_WITHIN_S = 10.0


# -- descriptors ------------------------------------------------------------------------------


@contextmanager
def crowd(service: ServiceProcess, size: int) -> Iterator[list[socket.socket]]:
    """Connections that stay open and send nothing."""
    url = httpx.URL(service.url)
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((url.host, url.port or 0), 10))
            for _ in range(size)
        ]


def said_to(connection: socket.socket) -> bytes:
    """What the instance sends before it closes the connection; empty while it keeps it open."""
    connection.settimeout(0.05)
    said = b""
    with suppress(TimeoutError, ConnectionError):
        while piece := connection.recv(65_536):
            said += piece
    return said


def probe(service: ServiceProcess, path: str) -> bool:
    return httpx.get(f"{service.url}{path}").is_success


def test_more_connections_than_files_leave_room_for_the_log_the_disk_and_probes(
    new_service: StartService,
) -> None:
    service = new_service(http__head_timeout_s="120")
    service.launch_anew(f'ulimit -n {FILES}; exec "$@"')
    service.await_ready()
    process = psutil.Process(service.pid)
    with httpx.Client(base_url=service.url, timeout=20) as kept:
        assert kept.get("/v1/plans").is_success
        with crowd(service, CROWD) as connections:
            until(lambda: process.num_fds() >= FILES - 2 * RESERVED, what="the crowd is there")
            until(lambda: probe(service, "/healthz"), what="silent ones give the places back")
            assert probe(service, "/readyz")
            assert httpx.get(f"{service.url}/v1/plans").status_code == 503
            plan = {"id": "p", "tasks": [{"id": "t", "kind": "echo"}]}
            assert kept.post("/v1/plans", json=plan).is_success
            service.kill_nats()  # a new server and a new connection need files
            until(lambda: "embedded_server_restarted" in service.output or service.nats_pid())
            until(lambda: kept.get("/readyz").is_success, 40, "the log is back")
            assert kept.post("/v1/plans", json=plan | {"id": "q"}).is_success
            until(lambda: kept.get("/v1/plans/q").json()["status"] == "COMPLETED", what="it works")
            assert process.num_fds() <= FILES - RESERVED + 30  # probes, and what was just opened
            answers = [said for each in connections if (said := said_to(each))]
            assert len(answers) > CROWD - FILES
            assert all(each.startswith(b"HTTP/1.1 503") for each in answers)
        until(lambda: httpx.get(f"{service.url}/v1/plans").is_success, what="there is room again")
    assert service.terminate() == 0
    assert "Too many open files" not in service.output


# -- bad senders ------------------------------------------------------------------------------

GET = b"GET /v1/plans/p HTTP/1.1\r\nHost: localhost:%d\r\n"
POST = b"POST /v1/plans HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/json\r\n"
CHUNK = b"400\r\n" + b" " * 1_024 + b"\r\n"
BAD = {
    "silent": (b"", b"", 1.0),
    "slow head": (GET, b"a", 0.1),
    "endless head": (GET + b"A: ", b"a" * 700, 0.01),
    "endless headers": (GET, b"A: b\r\n" * 3, 0.01),
    "stopped head": (GET, b"", 1.0),
    "slow body": (POST + b"Content-Length: 9000\r\n\r\n", b" ", 0.1),
    "endless body": (POST + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK, 0.01),
    "stopped body": (POST + b"Content-Length: 9000\r\n\r\n", b"", 1.0),
}  # fmt: skip


async def send_badly(port: int, begin: bytes, again: bytes, pause_s: float) -> bytes:
    """Send until the instance closes the connection; answers the first line of what it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        writer.write(begin.replace(b"%d", b"%d" % port))
        with suppress(ConnectionError):
            while True:
                writer.write(again)
                await writer.drain()
                await asyncio.sleep(pause_s)

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(END_WITHIN_S):
            return (await reader.read()).partition(b"\r\n")[0]
    except ConnectionResetError:
        return b"reset"
    finally:
        sending.cancel()
        writer.transport.abort()


class HonestClient:
    """Asks for a plan about once a second, on one connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.took_s: list[float] = []

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                began = loop.time()
                writer.write(GET % self._port + b"\r\n")
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 200"), head
                    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                    await reader.readexactly(int(length))
                self.took_s.append(loop.time() - began)
                await asyncio.sleep(1)
        finally:
            writer.transport.abort()


@pytest.mark.timeout(300)
async def test_bad_senders_end_in_time_and_honest_clients_of_an_instance_notice_nothing(
    start_service: StartService, report: Report, *, long_faults: bool
) -> None:
    honest, senders = (1_000, 100) if long_faults else (100, 10)  # senders of each kind
    service = start_service(http__head_timeout_s=str(HEAD_S), http__body_timeout_s=str(BODY_S))
    port = httpx.URL(service.url).port or 0
    plan = {"id": "p", "tasks": [{"id": "t", "kind": "outside"}]}
    async with httpx.AsyncClient(base_url=service.url) as client:
        assert (await client.post("/v1/plans", json=plan)).is_success
    clients = [HonestClient(port) for _ in range(honest)]
    asking = [asyncio.create_task(client.run()) for client in clients]
    try:
        ended = {
            name: asyncio.gather(*(send_badly(port, *how) for _ in range(senders)))
            for name, how in BAD.items()
        }
        said = {name: set(await each) for name, each in ended.items()}
        assert not [each.exception() for each in asking if each.done()]
    finally:
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    assert said.pop("silent") == {b""}
    for name in ("endless head", "endless headers"):
        assert said.pop(name) <= {b"HTTP/1.1 431 Request Header Fields Too Large", b"reset"} | LATE
    assert said.pop("endless body") <= {b"HTTP/1.1 413 Request Entity Too Large", b"reset"} | LATE
    assert all(answer <= LATE for answer in said.values()), said
    took_s = [each for client in clients for each in client.took_s]
    assert all(client.took_s for client in clients)
    report.add(
        "bad senders",
        f"{honest} honest clients, {senders * len(BAD)} bad ones",
        answered=len(took_s),
        took_p50_s=percentile(took_s, 0.5),
        took_p99_s=percentile(took_s, 0.99),
    )


LATE = {b"HTTP/1.1 408 Request Timeout"}
