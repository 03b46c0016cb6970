"""A connection may send bounded heads, in bounded time; what is more is refused at once."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn

from service.http.bounded_protocol import BoundedProtocol, ConnectionLimits
from service.http.origin_check import RESPONSE_HEADERS
from service.http.shares import Shares, client_at
from service.runtime.child_process import dying_with_parent
from tests.faults.service_process import environment

LIMITS = ConnectionLimits(head_bytes=4_096, headers=20, head_s=0.4, body_s=0.8)
WITHIN_S = 10.0
PROBING = 4


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with how many bytes of body came."""
    del scope
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"%d" % size
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(limits: ConnectionLimits = LIMITS, most: int = 1_000) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app,
        port=0,
        http=partial(BoundedProtocol, limits, Shares(most, most), Shares(PROBING, PROBING)),  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        headers=RESPONSE_HEADERS,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    await server.on_tick(0)  # sets the headers of every answer
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


async def answer(port: int, *parts: bytes, pause_s: float = 0) -> bytes:
    """Everything that comes back until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(WITHIN_S):
            sending = asyncio.create_task(_send(writer, parts, pause_s))
            try:
                return await reader.read()
            except ConnectionResetError:
                return b"reset"
            finally:
                sending.cancel()
    finally:
        writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, parts: tuple[bytes, ...], pause_s: float) -> None:
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause_s)


GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
UPLOAD = (
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n"
    b"Content-Length: 5\r\n\r\n"
)
POST = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ((GET + b"A: " + b"a" * 3_900 + b"\r\n\r\n",), b"200"),
        ((GET + b"A: " + b"a" * 4_100 + b"\r\n\r\n",), b"431"),
        ((GET + b"A: " + b"a" * 30, *[b"a" * 1_000] * 10), b"431"),
        ((GET + b"".join(b"A%d: a\r\n" % n for n in range(18)) + b"\r\n",), b"200"),
        ((GET + b"".join(b"A%d: a\r\n" % n for n in range(19)) + b"\r\n",), b"431"),
        ((b"GET /" + b"u" * 5_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",), b"431"),
        ((b"GET /" + b"u" * 100, *[b"u" * 1_000] * 10), b"431"),
        ((b"n" * 5_000,), b"400"),
        ((POST, b"2;" + b"e" * 100, *[b"e" * 1_000] * 10), b"431"),
        ((POST, b"1\r\na\r\n0\r\n", b"T: " + b"t" * 100, *[b"t" * 1_000] * 10), b"431"),
        ((POST, *[b"400\r\n" + b"b" * 1_024 + b"\r\n"] * 100, b"0\r\n\r\n"), b"200"),
    ],
    ids=[
        "a header within the bound", "a header over it", "a header that does not end",
        "as many headers as allowed", "one header more", "a long target",
        "a target that does not end", "no HTTP at all", "a chunk's extension that does not end",
        "a trailer that does not end", "a long body",
    ],
)  # fmt: skip
async def test_a_head_is_bounded(parts: tuple[bytes, ...], status: bytes) -> None:
    async with serving() as port:
        said = await answer(port, *parts)
    assert said.startswith(b"HTTP/1.1 " + status)
    assert status != b"431" or b"urn:holdfast:problem:head_too_large" in said
    assert b"x-content-type-options: nosniff" in said.lower()
    assert b"frame-ancestors 'none'" in said


async def test_a_header_without_end_does_not_hold_the_loop() -> None:
    async with serving(ConnectionLimits()) as port:
        began = time.process_time()
        said = await answer(port, GET + b"A: ", *[b"a" * 1_048_576] * 64)
        assert time.process_time() - began < 1
    assert said.startswith(b"HTTP/1.1 431") or said == b"reset"  # it sent on for very long


@pytest.mark.parametrize(
    "parts",
    [
        (b"GET / HT", *[b""] * 100),
        (b"GET / HTTP/1.1\r\nA: ", *[b"a"] * 100),
        (POST.replace(b"Connection: close\r\n", b""), *[b"1\r\na\r\n"] * 100),
    ],
    ids=["a head that stops", "a head byte by byte", "a body byte by byte"],
)
async def test_a_slow_request_is_refused(parts: tuple[bytes, ...]) -> None:
    async with serving() as port:
        said = await answer(port, *parts, pause_s=0.2)  # 20 s; it is refused long before the end
    assert said.startswith(b"HTTP/1.1 408")
    assert b"urn:holdfast:problem:request_timeout" in said


SERVER = """
import asyncio, uvloop
from tests.unit.test_bounded_protocol import serving
async def serve():
    async with serving() as port:
        print(port, flush=True)
        await asyncio.Event().wait()
uvloop.run(serve())
"""


@pytest.mark.timeout(60)
async def test_a_body_that_came_while_the_process_was_suspended_is_read() -> None:
    """A loop that wakes up runs timers that are due before it reads."""
    server = await asyncio.create_subprocess_exec(
        *dying_with_parent(sys.executable, "-c", SERVER),
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    assert server.stdout is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", int(await server.stdout.readline()))
    try:
        async with asyncio.timeout(4 * WITHIN_S):
            writer.write(UPLOAD)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            server.send_signal(signal.SIGSTOP)
            writer.write(b"abcde")
            await asyncio.sleep(2 * LIMITS.body_s)  # all of the request's time
            server.send_signal(signal.SIGCONT)
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
    finally:
        writer.transport.abort()
        server.kill()
        await server.wait()


async def test_a_connection_that_sends_nothing_is_closed() -> None:
    async with serving() as port:
        assert await answer(port) == b""


async def test_a_connection_may_be_used_for_long() -> None:
    async with serving(ConnectionLimits(head_s=1, body_s=1)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(WITHIN_S):
            for _ in range(15):  # longer than one request may take
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(1) == b"0"
                await asyncio.sleep(0.1)
        writer.transport.abort()


async def test_connections_are_bounded_and_a_closed_one_makes_room() -> None:
    async with serving(ConnectionLimits(), most=2) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        async with asyncio.timeout(WITHIN_S):
            refused = await answer(port)
            assert refused.startswith(b"HTTP/1.1 503")
            assert b"urn:holdfast:problem:unavailable" in refused
            for reader, writer in held:
                writer.write(GET + b"\r\n")  # those that have a place notice nothing
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
                writer.transport.abort()
            while not (said := await answer(port, GET + b"\r\n")).startswith(b"HTTP/1.1 200"):
                assert said.startswith(b"HTTP/1.1 503")


KEPT = GET.replace(b"Connection: close\r\n", b"") + b"\r\n"
CUT = POST.replace(b"Connection: close\r\n", b"") + b"zz\r\n"


@pytest.mark.parametrize("wrong", [b"\0\r\n\r\n", b"GET / HTTP/9\r\n\r\n", CUT, b"A" * 5_000])
@pytest.mark.parametrize("before", [1, 3])
async def test_requests_before_a_malformed_one_get_their_own_answers(
    wrong: bytes, before: int
) -> None:
    async with serving() as port:
        said = await answer(port, KEPT * before + wrong)
    assert said.count(b"HTTP/1.1 200") == before
    assert b"HTTP/1.1 4" not in said
    assert said.endswith(b"0")
    assert b"connection: close" in said


async def test_probes_are_answered_where_there_is_no_place() -> None:
    probe, crowd = GET.replace(b"GET /", b"GET /healthz?_=1"), 2
    async with serving(ConnectionLimits(), most=crowd) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(crowd)]
        for _ in range(PROBING + 1):  # the place of a probe is free again at once
            said = await answer(port, probe.replace(b"close", b"keep-alive") + b"\r\n")
            assert said.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in said
            assert (await answer(port, GET + b"\r\n")).startswith(b"HTTP/1.1 503")
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(PROBING)]
        assert (await answer(port)).startswith(b"HTTP/1.1 503")  # these are bounded, too
        for reader, writer in silent:
            async with asyncio.timeout(WITHIN_S):
                assert (await reader.read()).startswith(b"HTTP/1.1 503")  # and end soon
            writer.transport.abort()
        assert (await answer(port, probe + b"\r\n")).startswith(b"HTTP/1.1 200")
        for _, writer in held:
            writer.transport.abort()


def test_one_client_cannot_take_the_places_of_others() -> None:
    shares = Shares(total=5, each=2)
    assert [shares.take("a") for _ in range(3)] == [True, True, False]
    assert [shares.take("b") for _ in range(2)] == [True, True]
    shares.give_back("a")
    assert shares.take("a")
    assert shares.take(None)
    assert not shares.take(None)  # nor can those that are not told apart exceed the total
    for client in ("a", "a", "b", "b", None):
        shares.give_back(client)
    assert shares.held == 0


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3::4", "2001:0db8:0001:0002"),
        ("2001:db8:1:2:9::9", "2001:0db8:0001:0002"),
        ("127.0.0.1", None),
        ("127.9.9.9", None),
        ("::1", None),
        ("", None),
    ],
)
def test_a_client_is_an_address_that_is_not_loopback(address: str, client: str | None) -> None:
    assert client_at(address) == client


BAD = {
    "silent": (),
    "slow": (b"GET / HTTP/1.1\r\nA: ", *[b"a"] * 1_000),
    "endless": (GET + b"A: ", *[b"a" * 512] * 1_000),
    "endless body": (POST, *[b"1\r\na\r\n"] * 1_000),
}


@pytest.mark.timeout(120)
async def test_bad_senders_end_in_time_and_honest_clients_notice_nothing(
    *, long_faults: bool
) -> None:
    honest, loop = (1_000 if long_faults else 50), asyncio.get_running_loop()
    async with serving(most=4_000) as port:
        senders = [
            asyncio.create_task(answer(port, *parts, pause_s=0.02))
            for parts in BAD.values()
            for _ in range(honest // 2)
        ]
        served = 0
        slowest_s = 0.0
        while not all(each.done() for each in senders):
            began = loop.time()
            said = await asyncio.gather(*(answer(port, GET + b"\r\n") for _ in range(honest)))
            assert all(each.startswith(b"HTTP/1.1 200") for each in said)
            slowest_s = max(slowest_s, loop.time() - began)
            served += len(said)
        assert served >= honest
        assert slowest_s < WITHIN_S
        ended = {(await each)[:12] for each in senders}
    assert ended <= {b"", b"reset", b"HTTP/1.1 408", b"HTTP/1.1 431"}
