"""Many clients in one process: raw sockets, next to no parsing, so that they are not measured.

Usage: python -m tests.bench.sse_crowd PORT PATH CLIENTS. Says {"connected": ...} when all have
caught up; then, for each line on stdin, what came since the last: events, and the seconds from the
time that stands in them (`"sent":`, the machine's monotonic clock) to their arrival.
"""

import asyncio
import json
import re
import sys
import time
from typing import ClassVar, cast

import uvloop

AT_ONCE = 64  # connections being opened
CAUGHT_UP = b"event: caught_up\n"
_sent = re.compile(rb'"sent":([0-9.]+)').findall


class Client(asyncio.Protocol):
    """One open stream."""

    latencies: ClassVar[list[float]] = []
    ended = 0

    def __init__(self, request: bytes) -> None:
        self.live: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note when events arrive; one that is cut counts when it is whole."""
        now = time.monotonic()
        data = self._rest + data
        end = data.rfind(b"\n\n") + 2
        whole, self._rest = data[:end], data[end:]
        for sent in _sent(whole):
            self.latencies.append(now - float(sent))
        if not self.live.done() and CAUGHT_UP in whole:
            self.live.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Count those that the server ended."""
        Client.ended += 1
        if not self.live.done():
            self.live.set_exception(ConnectionError("the stream ended before it was caught up"))


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def _seen(since: float, cpu: float) -> dict[str, float]:
    ordered = sorted(Client.latencies)
    Client.latencies.clear()
    return {
        "events": len(ordered),
        "p50_ms": _percentile(ordered, 0.5) * 1000,
        "p99_ms": _percentile(ordered, 0.99) * 1000,
        "max_ms": ordered[-1] * 1000 if ordered else 0.0,
        "ended": Client.ended,
        "generator_cpu": (time.process_time() - cpu) / (time.perf_counter() - since),
    }


async def main() -> None:
    """Connect all clients, and answer questions."""
    port, path, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()
    loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)

    async def connect() -> None:
        async with gate:
            _, client = await loop.create_connection(lambda: Client(request), "127.0.0.1", port)
            await client.live

    began = time.perf_counter()
    await asyncio.gather(*(connect() for _ in range(count)))
    print(json.dumps({"connected": count, "took_s": time.perf_counter() - began}), flush=True)
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    while True:
        since, cpu = time.perf_counter(), time.process_time()
        if not await stdin.readline():
            return
        print(json.dumps(_seen(since, cpu)), flush=True)


uvloop.run(main())
