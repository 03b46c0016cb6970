"""Streams for who speaks HTTP in other ways: version 1.0, `Connection: close`, other methods."""

import asyncio
from typing import Self

import httpx
import pytest

from service.app import Instance
from tests.clients.outside import OutsidePlan


class Raw:
    """One request as bytes; what is answered, as bytes."""

    def __init__(self, instance: Instance, request: str) -> None:
        self._address = instance.http_url.removeprefix("http://").split(":")
        self._request = request

    async def __aenter__(self) -> Self:
        host, port = self._address
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        self._writer.write(self._request.replace("\n", "\r\n").encode())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def until(self, words: bytes) -> bytes:
        async with asyncio.timeout(20):
            return await self._reader.readuntil(words)

    async def rest(self) -> bytes:
        async with asyncio.timeout(20):
            return await self._reader.read()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_only_clients_of_http_1_1_are_sent_chunks(instance: Instance, version: str) -> None:
    plan = await OutsidePlan.begin(instance.core, "p")
    host = instance.http_url.removeprefix("http://")
    request = f"GET /v1/plans/p/events HTTP/{version}\nHost: {host}\nConnection: close\n\n"
    async with Raw(instance, request) as raw:
        head = await raw.until(b"\r\n\r\n")
        body = await raw.until(b'"sequence":2}\n\n')  # caught_up
        await plan.finish()
        body += await raw.rest()
    assert b"connection: close\r\n" in head
    if version == "1.1":
        assert b"transfer-encoding: chunked\r\n" in head
        assert body.endswith(b"0\r\n\r\n")
        return
    assert b"transfer-encoding" not in head
    assert b"\r" not in body
    assert body.startswith(b"retry: ")
    assert body.endswith(b'event: closed\ndata: {"reason":"plan_finished"}\n\n')


async def test_a_client_of_1_0_that_hangs_up_is_forgotten(instance: Instance) -> None:
    async with Raw(instance, "GET /v1/events HTTP/1.0\n\n") as raw:
        await raw.until(b"caught_up")
        assert instance.core.feed.connections == 1
    async with asyncio.timeout(20):
        while instance.core.feed.connections:
            await asyncio.sleep(0.005)


async def test_other_methods_get_the_allowed_one(instance: Instance) -> None:
    async with httpx.AsyncClient(base_url=instance.http_url) as client:
        for path in ("/v1/events", "/v1/plans/p/events"):
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                answer = await client.request(method, path, json={})
                assert answer.status_code == httpx.codes.METHOD_NOT_ALLOWED, method
                assert "GET" in answer.headers["allow"]
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["code"] == "method_not_allowed"


async def test_head_is_answered_as_get_without_a_stream(instance: Instance) -> None:
    await OutsidePlan.begin(instance.core, "p")
    async with httpx.AsyncClient(base_url=instance.http_url) as client:
        for path, status in (
            ("/v1/events", 200),
            ("/v1/plans/p/events", 200),
            ("/v1/plans/q/events", 404),
        ):
            answer = await client.head(path)
            assert (answer.status_code, answer.content) == (status, b"")
        assert answer.headers["content-type"] == "application/problem+json"
    assert instance.core.feed.connections == 0
