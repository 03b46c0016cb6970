"""What a browser and a network see of a real instance: its headers on every answer, and TLS."""

import asyncio
import socket
import ssl
import subprocess
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx
import pytest

from service.http.origin_check import RESPONSE_HEADERS
from service.http.server import HANDSHAKES
from service.settings.config import ConfigError
from tests.integration.http_world import serving
from tests.programs import program
from tests.unit.tokens_world import bearer, give
from tests.waiting import eventually

WITHIN_S = 20.0
EXPECTED = {name.lower(): value for name, value in RESPONSE_HEADERS}


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *(program("openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-out", str(cert), "-keyout", str(key)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


async def test_every_answer_carries_the_headers_that_bind_a_browser(tmp_path: Path) -> None:
    async with serving(tmp_path) as (instance, client):
        answers = [
            await client.get("/healthz"),
            await client.get("/v1/plans/nothing"),
            await client.delete("/v1/plans"),
            await client.get("/healthz", headers={"Host": "evil.test"}),
            await client.head("/v1/events"),
            await client.get("/healthz", headers={"X": "x" * 40_000}),
        ]
        assert [answer.status_code for answer in answers] == [200, 404, 405, 403, 200, 431]
        for answer in answers:
            assert {name: answer.headers.get(name) for name in EXPECTED} == EXPECTED
        port = httpx.URL(instance.http_url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"no HTTP at all\r\n\r\n")
        async with asyncio.timeout(WITHIN_S):
            said = await reader.read()
        writer.close()
        assert said.startswith(b"HTTP/1.1 400")
        assert b"urn:holdfast:problem:invalid_request" in said
        for name, value in EXPECTED.items():
            assert f"{name}: {value}".encode() in said


async def test_the_api_speaks_tls_events_included(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    flags = {"http__tls_cert": str(cert), "http__tls_key": str(key), "sse__heartbeat_s": 0.2}
    async with serving(tmp_path, **flags) as (instance, _):
        assert instance.http_url.startswith("https://")
        url = instance.http_url.replace("127.0.0.1", "localhost")
        trusting = ssl.create_default_context(cafile=str(cert))
        async with httpx.AsyncClient(base_url=url, verify=trusting, timeout=WITHIN_S) as client:
            task = {"id": "a", "kind": "outside"}
            origin = {"Origin": url}
            posted = await client.post("/v1/plans", json={"tasks": [task]}, headers=origin)
            assert posted.status_code == 201
            plain = {"Origin": url.replace("https", "http")}
            assert (await client.get("/healthz", headers=plain)).status_code == 403
            async with client.stream("GET", "/v1/events?after=0") as events:
                lines = events.aiter_lines()
                async with asyncio.timeout(WITHIN_S):
                    while "plan.submitted" not in await anext(lines):
                        continue
                    while await anext(lines) != ": ping":
                        continue
            with pytest.raises(httpx.HTTPError):
                await client.get(f"{url.replace('https', 'http')}/healthz")


async def test_silent_tls_clients_are_bounded_in_number_and_time_while_others_are_served(
    tmp_path: Path,
) -> None:
    """The time limit of a head holds for the handshake as well; the oldest make room for others."""
    cert, key = certificate(tmp_path)
    flags = {"http__tls_cert": str(cert), "http__tls_key": str(key), "http__head_timeout_s": 2}
    trusting = ssl.create_default_context(cafile=str(cert))
    async with serving(tmp_path, **flags) as (instance, _), AsyncExitStack() as stack:
        url = instance.http_url.replace("127.0.0.1", "localhost")
        port = httpx.URL(url).port
        files = open_files()
        began = time.monotonic()
        silent = [stack.enter_context(socket.socket()) for _ in range(HANDSHAKES + 100)]
        loop = asyncio.get_running_loop()
        for each in silent:
            each.setblocking(False)  # noqa: FBT003 - the standard library's signature
            await loop.sock_connect(each, ("127.0.0.1", port))
        async with httpx.AsyncClient(base_url=url, verify=trusting, timeout=WITHIN_S) as client:
            assert (await client.get("/healthz")).is_success
        if time.monotonic() < began + 2:  # none has ended by itself
            assert open_files() - files <= len(silent) + HANDSHAKES + 5
        async with asyncio.timeout(WITHIN_S):
            for each in silent:
                with suppress(ConnectionResetError):
                    assert await loop.sock_recv(each, 1) == b""
        await eventually(lambda: open_files() <= files + len(silent) + 2, "the files are back")


@pytest.mark.parametrize("broken", ["cert", "key"])
async def test_a_certificate_that_cannot_be_used_stops_the_start(
    tmp_path: Path, broken: str
) -> None:
    cert, key = certificate(tmp_path)
    (cert if broken == "cert" else key).write_text("not a PEM file, but hunter2")
    flags = {"http__tls_cert": str(cert), "http__tls_key": str(key)}
    with pytest.raises(ConfigError, match=r"http\.tls_cert") as refused:
        async with serving(tmp_path, **flags):
            pass
    assert "hunter2" not in str(refused.value)


async def test_one_principal_cannot_take_the_places_of_another(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    alice, bob = (bearer(give(tokens, name, "operator")) for name in ("alice", "bob"))
    flags = {"http__max_streams_per_client": 1, "http__max_waiting_claims_per_client": 1}
    rates = {"http__writes_per_s": 2, "auth__tokens_file": str(tokens)}
    async with serving(tmp_path, **flags, **rates) as (_, client):
        async with client.stream("GET", "/v1/events", headers=alice) as held:
            assert held.status_code == 200
            refused = await client.get("/v1/events", headers=alice)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
            assert refused.headers["retry-after"] == "5"
            async with client.stream("GET", "/v1/events", headers=bob) as other:
                assert other.status_code == 200
        waits = {"owner": "alice", "wait_s": 30}
        both = {
            asyncio.create_task(client.post("/v1/claims", json=waits, headers=alice))
            for _ in range(2)
        }
        ended, held_up = await asyncio.wait(
            both, timeout=WITHIN_S, return_when=asyncio.FIRST_COMPLETED
        )
        (second,), (waiting,) = ended, held_up
        assert second.result().status_code == 429
        assert "1 waiting claims" in second.result().json()["detail"]
        waiting.cancel()
        answers = [
            await client.post("/v1/plans/p/pause", json={}, headers=alice) for _ in range(40)
        ]
        assert {answer.status_code for answer in answers} == {404, 429}
        said = {answer.json()["detail"] for answer in answers if answer.status_code == 429}
        assert all("more than 2 requests per second" in detail for detail in said)
        assert (await client.post("/v1/plans/p/pause", json={}, headers=bob)).status_code == 404
