"""The log as an instance has it: connected through the proxy, and asked how it is all the time."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from streams.jetstream.leadership import Patience
from streams.jetstream.log import JetStreamLog
from streams.log import LogState, LogUnavailable, ReplicaTrouble
from tests.cluster.nats_cluster import NatsCluster

INSTANCE = 1  # whose links to the nodes are used
ASK_S = 0.5


class ProbedLog:
    """The log, and what it said of itself last; None while it does not answer."""

    def __init__(self, log: JetStreamLog) -> None:
        self.log = log
        self.state: LogState | None = None

    @property
    def late(self) -> tuple[ReplicaTrouble, ...]:
        """The replicas that the log names as late."""
        return self.state.late if self.state else ()

    async def probe(self) -> None:
        """Ask for ever."""
        while True:
            state = None
            with suppress(LogUnavailable, TimeoutError):
                async with asyncio.timeout(1):
                    state = await self.log.state()
            self.state = state
            await asyncio.sleep(ASK_S)


@asynccontextmanager
async def probed_cluster(folder: Path) -> AsyncGenerator[tuple[NatsCluster, ProbedLog]]:
    """A whole cluster, and its log, which is probed as an instance does it."""
    cluster = NatsCluster(folder)
    try:
        await cluster.start()
        async with _probed_log(cluster) as probed:
            yield cluster, probed
    finally:
        await cluster.stop()


@asynccontextmanager
async def _probed_log(cluster: NatsCluster) -> AsyncGenerator[ProbedLog]:
    log = await JetStreamLog.connect(cluster.urls_for(INSTANCE), replicas=3, patience=Patience())
    probed = ProbedLog(log)
    probing = asyncio.create_task(probed.probe())
    try:
        yield probed
    finally:
        probing.cancel()
        await asyncio.wait([probing])
        await log.close()
