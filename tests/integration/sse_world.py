"""Instances with a real log and real sockets, and clients that read them as others do."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec
from httpx_sse import ServerSentEvent, aconnect_sse

from service.app import Instance, running
from service.core.core import Core
from service.settings.config import (
    ExecutorSettings,
    HttpSettings,
    NatsSettings,
    Settings,
    SseSettings,
)
from streams.plan.events import Event
from tests.appending import append

INSTANCE = "test"


@asynccontextmanager
async def serving(
    nats_url: str, data_dir: Path, *, port: int = 0, **sse: float
) -> AsyncIterator[Instance]:
    """An instance that only answers HTTP, on any free port unless told."""
    settings = Settings(
        http=HttpSettings(port=port),
        nats=NatsSettings(url=nats_url),
        data_dir=data_dir,
        sse=SseSettings(**sse),  # type: ignore[arg-type]
        executor=ExecutorSettings(instance_id=f"{INSTANCE}:{data_dir.name}"),
    )
    async with running(settings, frozenset({"api"})) as instance:
        yield instance


async def write(
    core: Core, plan_id: str, task_id: str | None, expected: int, *events: Event
) -> int:
    """Append facts that must be accepted, and wait until this instance has folded them."""
    sequence = await append(core.log, plan_id, task_id, expected, *events)
    await core.folded(sequence)
    return sequence


class Stream:
    """One open stream over httpx-sse."""

    def __init__(self, url: str, path: str, **asked: Any) -> None:
        self._url = url
        self._path = path
        self._asked = asked

    async def __aenter__(self) -> Self:
        self._client = httpx.AsyncClient(base_url=self._url, timeout=20)
        self._connecting = aconnect_sse(self._client, "GET", self._path, **self._asked)
        source = await self._connecting.__aenter__()
        source.response.raise_for_status()
        self.headers = source.response.headers
        self._events = source.aiter_sse()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._events.aclose()  # type: ignore[attr-defined]
        await self._connecting.__aexit__(None, None, None)
        await self._client.aclose()

    async def next(self) -> ServerSentEvent:
        async with asyncio.timeout(20):
            return await anext(self._events)

    async def until(self, name: str) -> list[ServerSentEvent]:
        """Everything up to and with the next event called ``name``."""
        found = [await self.next()]
        while found[-1].event != name:
            found.append(await self.next())
        return found

    async def take(self, count: int) -> list[int]:
        """The sequences of the next ``count`` events; signals about the stream are passed."""
        found: list[int] = []
        while len(found) < count:
            event = await self.next()
            if "." in event.event:
                found.append(msgspec.json.decode(event.data)["sequence"])
        return found


async def open_raw(url: str, path: str, receive_buffer: int = 4096) -> socket.socket:
    """A connection that has asked for a stream and reads nothing of it."""
    host, port = url.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.setblocking(False)  # noqa: FBT003 - the standard library's signature
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (host, int(port)))
    await loop.sock_sendall(client, f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    return client
