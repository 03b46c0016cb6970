"""Replay to one client from sequence 1, against a bare pull loop over the same log."""

import time
from collections.abc import AsyncGenerator

from streams.jetstream.connection import Connection
from streams.jetstream.consumer import Consumer, ConsumerBroken, parse_reply
from streams.jetstream.log import JetStreamLog
from tests.bench import bed, sse_bed, sse_log
from tests.bench.child import answer_of
from tests.bench.report import Result
from tests.faults.service_process import ServiceProcess

PULLS = 3


class BareConsumer(Consumer):
    """Looks at positions and at nothing else."""

    def count(self) -> int:
        """Step over what has arrived; how many messages that was."""
        arrived, self._arrived = self._arrived, []
        for _, reply, headers, _ in arrived:
            if not reply.startswith(b"$JS.ACK."):
                self._on_status(headers)
                continue
            self.position, consumed, _, pending = parse_reply(reply)
            if consumed != self._consumed + 1:
                raise ConsumerBroken
            self._consumed = consumed
            self._outstanding -= 1
            self.at_end = pending == b"0"
        self._pull()
        return len(arrived)


async def bare_pull(url: str) -> float:
    """Messages per second of a pull loop that decodes nothing."""
    connection = await Connection.open(url, name="bench", timeout_s=5)
    consumer = BareConsumer(
        connection, connection.names.plans_stream, 0, pulls=PULLS, inactive_s=10
    )
    began, seen = time.perf_counter(), 0
    await consumer.open()
    while not consumer.at_end:
        await consumer.until_news(5)
        seen += consumer.count()
    took_s = time.perf_counter() - began
    await consumer.shut()
    await connection.close()
    return seen / took_s


async def replay(process: ServiceProcess, path: str) -> dict[str, float]:
    """What the reader says of one replay from the beginning, and what the service spent on it."""
    cost = sse_bed.Cost(process.pid)
    seen = await answer_of("tests.bench.sse_reader", sse_bed.port_of(process), path)
    if not seen["increasing"]:
        raise RuntimeError("ids do not increase")
    return seen | {"cpu_us_per_event": cost.cpu_s / seen["events"] * 1e6, "busy": cost.busy}


async def measure(scale: float) -> AsyncGenerator[Result]:
    """The whole log, then one plan of 10,000 events at its end."""
    with bed.nats() as server:
        log = await JetStreamLog.connect(server.url)
        head = await sse_log.fill(log, int(200_000 * scale))
        await log.close()
        async with sse_bed.service(server.url) as process:
            bare = await bare_pull(server.url)
            seen = await replay(process, "/v1/events?after=0")
    if (seen["events"], seen["last"]) != (head, head):
        raise RuntimeError(f"{seen} of a log of {head} events")
    rate = seen["events"] / seen["took_s"]
    limit = (
        f"CPU of the service's loop: {seen['cpu_us_per_event']:.1f} µs for each event, of which "
        "(py-spy) a third is decoding the message, a quarter rendering and cutting, a fifth "
        "nats-py's parser; the server and the client wait for it"
    )
    yield Result(
        measure="SSE replay to one client from sequence 1",
        value=rate,
        unit="events/s",
        at_least=40_000,
        seen={
            "events": head,
            "cpu_us_per_event": seen["cpu_us_per_event"],
            "generator_cpu": seen["generator_cpu"],
        },
        limit=limit,
    )
    yield Result(
        measure="  against a bare pull loop over the same log",
        value=rate / bare,
        unit="ratio",
        at_least=0.3,
        seen={"bare_per_s": bare},
    )
