"""Sends malformed requests over many sockets at once, and notes how each connection ended."""

import asyncio
import re
import socket
import struct
from collections import Counter
from contextlib import suppress

import msgspec

from tests.faults.malformed import Grammar, Malformed

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
EVENTS = b"text/event-stream"
CONNECT_S = 20.0
FIRST_S = 0.5
KEPT = 64 * 1024  # bytes of an answer that are looked at
NO_LINGER = struct.pack("ii", 1, 0)  # closing breaks the connection
SHOWN = 400


class Outcome(msgspec.Struct):
    """How a run of requests ended. ``faults`` are requests that were answered wrongly or not."""

    sent: int = 0
    answers: Counter[int] = msgspec.field(default_factory=Counter[int])
    unanswered: int = 0
    faults: list[str] = []
    slowest_s: float = 0.0


async def send_all(
    grammar: Grammar, count: int, address: tuple[str, int], *, at_once: int, deadline_s: float
) -> Outcome:
    """Send ``count`` requests, ``at_once`` of them at a time; each has ``deadline_s`` to end."""
    outcome = Outcome()
    drawn = iter(range(count))

    async def send_some() -> None:
        for _ in drawn:
            await _send(grammar.draw(), address, deadline_s, outcome)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(send_some())
    return outcome


async def _send(
    request: Malformed, address: tuple[str, int], deadline_s: float, outcome: Outcome
) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(*address)
    except OSError as error:
        outcome.faults.append(f"it cannot connect: {error!r}")
        return
    began = loop.time()
    said = bytearray()
    try:
        async with asyncio.timeout(deadline_s):
            with suppress(OSError):  # the instance may break the connection at any point
                await _exchange(request, reader, writer, said)
    except TimeoutError:
        # A stream that is followed by a further request is not read from, and goes on.
        if EVENTS not in said:
            outcome.faults.append(f"no end within {deadline_s:g} s: {_shown(request)}")
    finally:
        writer.transport.abort()
    outcome.sent += 1
    outcome.slowest_s = max(outcome.slowest_s, loop.time() - began)
    statuses = [int(each) for each in STATUS.findall(said)]
    outcome.answers.update(statuses)
    outcome.unanswered += not statuses
    if any(each >= 500 for each in statuses):
        outcome.faults.append(f"{statuses}: {_shown(request)}: {said[-SHOWN:]!r}")


async def _exchange(
    request: Malformed,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    said: bytearray,
) -> None:
    """Write the request and read what comes until the connection ends or enough has come."""
    for piece in request.pieces:
        writer.write(piece)
        await asyncio.sleep(0)
    if request.ending == "reset":
        await writer.drain()
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        return
    if request.ending == "held":
        said += await reader.read(KEPT)
        return
    if _looks_whole(request):  # it is answered before the end of what is sent is seen
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                said += await reader.read(KEPT)
    writer.write_eof()
    while piece := await reader.read(KEPT):
        if len(said) < 4 * KEPT:
            said += piece


def _looks_whole(request: Malformed) -> bool:
    """Whether the request has a whole head."""
    return any(b"\r\n\r\n" in piece for piece in request.pieces)


def _shown(request: Malformed) -> str:
    written = b"".join(request.pieces)
    return f"{request.kind}, {request.ending}, {len(written)} bytes: {written[:SHOWN]!r}"
