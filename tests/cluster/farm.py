"""The farm: three nodes, three instances and the links between them, started, moved and ended."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.cluster.instance import Instance, build_wall_clock
from tests.cluster.nats_cluster import NatsCluster
from tests.cluster.ports import NUMBERS
from tests.cluster.record import History, Outage, UnexpectedEnd
from tests.ports import free_ports

READY_S = 60.0
MOVE_S = 20.0
STOP_S = 30.0
POLL_S = 0.1


class Farm:
    """Everything that runs; faults act on it. ``history`` notes which instances are stopped."""

    def __init__(self, folder: Path, history: History, module: str = "service") -> None:
        self.cluster = NatsCluster(folder)
        self.links = self.cluster.links
        self.nodes = self.cluster.nodes
        self._history = history
        self._wanted: set[int] = set()  # the instances that should run
        self._client = httpx.AsyncClient(timeout=2)
        clock = build_wall_clock(folder)
        self.instances = {
            number: Instance(
                number,
                folder,
                nats_url=self.cluster.urls_for(number),
                port=port,
                clock=clock,
                module=module,
            )
            for number, port in zip(NUMBERS, free_ports(len(NUMBERS)), strict=True)
        }
        self.addresses = {number: each.address for number, each in self.instances.items()}

    async def start(self) -> None:
        """Everything runs and is ready on return."""
        await self.cluster.start()
        for number in NUMBERS:
            self.start_instance(number)
        await self.await_ready()

    async def end(self) -> None:
        """End every process, however it is."""
        for instance in self.instances.values():
            if instance.running:
                instance.kill()
        await self.cluster.stop()
        await self._client.aclose()

    async def await_ready(
        self, numbers: Iterable[int] = NUMBERS, within_s: float = READY_S
    ) -> None:
        """Until these instances are ready; fails with what one that is not has printed."""
        for number in numbers:
            deadline = time.monotonic() + within_s
            while not await self.is_ready(number):
                said = self.instances[number].output[-2000:]
                assert time.monotonic() < deadline, f"{number} is not ready; it said:\n{said}"
                await asyncio.sleep(POLL_S)

    async def is_ready(self, number: int) -> bool:
        """Whether this instance says that it can work."""
        instance = self.instances[number]
        self.start_what_ended()
        try:
            answer = await self._client.get(f"{instance.address}/readyz")
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    async def place(self, number: int, node: int) -> None:
        """Let an instance be connected to this node; the other nodes stay reachable."""
        others = [f"c{number}{other}" for other in NUMBERS if other != node]
        async with asyncio.timeout(MOVE_S):
            self.links.refuse(others)
            while self.links.nodes_of(number) != [node]:
                await asyncio.sleep(POLL_S / 4)
            self.links.mend(others)
            while not await self.is_ready(number):
                await asyncio.sleep(POLL_S)

    def connected_to(self, node: int) -> tuple[int, ...]:
        """The instances that have a connection to this node."""
        return tuple(number for number in NUMBERS if node in self.links.nodes_of(number))

    # -- instances that are stopped, frozen and started again --------------------------------------

    def start_instance(self, number: int) -> None:
        """Start its process; does not wait. The caller says when it has to answer again."""
        self._wanted.add(number)
        self.instances[number].launch()

    def start_what_ended(self) -> None:
        """Start what has ended by itself, as a supervisor does, and record that it had to be."""
        for number in self._wanted:
            instance = self.instances[number]
            if not instance.running:
                last = instance.output.strip().rpartition("\n")[2][:300]
                end = UnexpectedEnd(number, time.time(), instance.exit_code or 0, last)
                self._history.ends.append(end)
                instance.launch()

    def kill_instance(self, number: int) -> None:
        """As a crash."""
        self._goes(number)
        self.instances[number].kill()

    async def stop_instance(self, number: int) -> None:
        """As an operator who upgrades it; waits until it has ended."""
        self._goes(number)
        instance = self.instances[number]
        instance.ask_to_end()
        async with asyncio.timeout(STOP_S):
            while instance.running:
                await asyncio.sleep(POLL_S)

    def freeze_instance(self, number: int) -> None:
        """As a machine that is suspended."""
        self._goes(number)
        self.instances[number].freeze()

    def thaw_instance(self, number: int) -> None:
        """Let it go on; it can answer from now on."""
        self._wanted.add(number)
        self.instances[number].thaw()
        self.comes_back(number)

    def comes_back(self, number: int) -> None:
        """From now on this instance has to answer."""
        for outage in self._history.outages_of(number):
            if outage.until is None:
                outage.until = time.time()

    def _goes(self, number: int) -> None:
        self._wanted.discard(number)
        self._history.outages.append(Outage(number, time.time()))


@asynccontextmanager
async def running_farm(
    folder: Path, history: History, module: str = "service"
) -> AsyncGenerator[Farm]:
    """A farm that is ready, and ended afterwards; its instances run ``module``."""
    farm = Farm(folder, history, module)
    try:
        await farm.start()
        yield farm
    finally:
        await farm.end()
