"""An answer of known length is one write, and no byte of any answer differs from uvicorn's own."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http.bounded_protocol import BoundedProtocol, ConnectionLimits
from service.http.origin_check import RESPONSE_HEADERS
from service.http.shares import Shares

Header = tuple[bytes, bytes]
START = "http.response.start"
BODY = "http.response.body"


class Connection(asyncio.Transport):
    """A transport that remembers its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def resume_reading(self) -> None:
        """There is nothing to read."""


def head(*headers: Header, status: int = 200) -> dict[str, Any]:
    return {"type": START, "status": status, "headers": list(headers)}


def body(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": BODY, "body": content, "more_body": more}


def length(size: int) -> Header:
    return b"content-length", b"%d" % size


async def answered(protocol: Any, request: bytes, messages: Sequence[Any]) -> Connection:
    """What a server with ``protocol`` writes where the application sends ``messages``."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    config = uvicorn.Config(app, log_config=None, lifespan="off", headers=RESPONSE_HEADERS)
    config.load()
    state = uvicorn.Server(config).server_state
    state.default_headers = config.encoded_headers
    connection = Connection()
    serving = protocol(config=config, server_state=state, app_state={})
    serving.connection_made(connection)
    serving.data_received(request)
    await asyncio.gather(*state.tasks)
    serving.connection_lost(None)
    return connection


def ours(**given: Any) -> BoundedProtocol:
    return BoundedProtocol(ConnectionLimits(), Shares(9, 9), Shares(9, 9), **given)


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MESSAGES: dict[str, tuple[bytes, list[Any]]] = {
    "whole": (GET, [head((b"a", b"b"), length(2)), body(b"{}")]),
    "empty": (GET, [head(length(0), status=503), body(b"")]),
    "no body is sent to HEAD": (b"HEAD" + GET[3:], [head(length(2)), body(b"{}")]),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", [head(length(2)), body(b"{}")]),
    "the last one": (GET, [head((b"connection", b"close"), length(2)), body(b"{}")]),
    "in parts": (GET, [head(length(4)), body(b"{}", more=True), body(b"[]")]),
    "in chunks": (GET, [head(), body(b"{}", more=True), body(b"[]")]),
    "204": (GET, [head(status=204), body(b"")]),
    "too long": (GET, [head(length(1)), body(b"{}")]),
    "too short": (GET, [head(length(3)), body(b"{}")]),
    "a line break in a header": (GET, [head((b"a", b"b\r\nc: d"), length(2)), body(b"{}")]),
    "a header without a name": (GET, [head((b"a b", b"c"), length(2)), body(b"{}")]),
    "no end": (GET, [head(length(2))]),
    "two ends": (GET, [head(length(2)), body(b"{}"), body(b"{}")]),
    "no beginning": (GET, [body(b"{}")]),
}


@pytest.mark.parametrize("case", MESSAGES)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_bytes_are_those_of_uvicorn(case: str) -> None:
    request, messages = MESSAGES[case]
    by_uvicorn = await answered(HttpToolsProtocol, request, messages)
    by_us = await answered(ours, request, messages)
    assert by_us.closed == by_uvicorn.closed
    if case not in {"too long", "no end"}:
        assert b"".join(by_us.writes) == b"".join(by_uvicorn.writes)


async def test_an_answer_of_a_known_length_is_one_write() -> None:
    written = await answered(ours, GET, MESSAGES["whole"][1])
    assert len(written.writes) == 1
    assert written.writes[0].endswith(b"a: b\r\ncontent-length: 2\r\n\r\n{}")


async def test_an_answer_that_does_not_come_is_a_whole_error() -> None:
    """Its head has not been sent, so that the client is not left with half an answer."""
    written = await answered(ours, GET, MESSAGES["no end"][1])
    assert b"".join(written.writes).startswith(b"HTTP/1.1 500 ")
