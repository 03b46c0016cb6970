"""One run: load on a farm, one fault after the other, and everything recorded for the checker."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from tests.cluster.caller import Caller
from tests.cluster.checks.health import NAMES
from tests.cluster.farm import Farm, running_farm
from tests.cluster.faults import Fault
from tests.cluster.log_reader import read_log
from tests.cluster.ports import NUMBERS
from tests.cluster.reach import Reach
from tests.cluster.read_models import views_of
from tests.cluster.readers import EventReader
from tests.cluster.record import FaultRun, History
from tests.cluster.watch import Watch
from tests.cluster.work import Load, Pace

SETTLE_S = 60.0
# A follower of nats-server 2.15.1 was seen to refuse its leader's catch-up for 76 s. A fault that
# takes another node meanwhile takes the quorum, which no fault but those of all nodes may do.
WHOLE_S = 300.0
DRAIN_S = 20.0
POLL_S = 0.2


class Form(msgspec.Struct, frozen=True):
    """How much a run does: its faults, and the time without any before, between and after them.

    When the faults are over it goes on until so many ``facts`` stand in the log.
    """

    faults: tuple[Fault, ...]
    pace: Pace
    calm_s: float
    readers: int
    facts: int = 0
    seed: int = 14


class Campaign:
    """The clients of one farm, and what they record."""

    def __init__(self, farm: Farm, history: History, form: Form) -> None:
        self._farm = farm
        self._history = history
        self._form = form
        self._caller = Caller(farm.addresses, history.calls)
        self._watch = Watch(self._caller, farm, history)
        self._reading: list[asyncio.Task[None]] = []
        self._load = Load(self._caller, farm.addresses, form.pace, form.seed)
        self._readers = [
            EventReader(
                f"reader-{number}",
                farm.addresses,
                random.Random(f"{form.seed} reader {number}"),
                0 if number % 2 else None,
            )
            for number in range(form.readers)
        ]

    async def run(self) -> None:
        """From the first client to the end of the log."""
        try:
            await self._disturb()
            await self._look_back()
        finally:
            await self._stop()
            await self._caller.close()

    async def _disturb(self) -> None:
        await self._spread()
        await self._watch.start()
        self._load.start()
        self._reading = [asyncio.create_task(reader.read()) for reader in self._readers]
        await self._calm()
        for fault in self._form.faults:
            await self._suffer(fault)
            await self._calm()
        while self._newest() < self._form.facts:
            await self._calm()
        await self._load.finish(DRAIN_S)
        await self._stop()

    async def _spread(self) -> None:
        """Connect the first instance to the leader, and the others to one follower each."""
        leader = await self._farm.cluster.leader()
        nodes = sorted(NUMBERS, key=lambda node: node != leader)
        for number, node in zip(NUMBERS, nodes, strict=True):
            await self._farm.place(number, node)

    def _newest(self) -> int:
        """The last sequence that was acknowledged among the newest calls."""
        return max((call.sequence for call in self._history.calls[-1000:]), default=0)

    async def _stop(self) -> None:
        """End every client."""
        await self._load.stop()
        await self._watch.stop()
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def _calm(self) -> None:
        history, watch = self._history, self._watch
        watch.lateness_s = 0.0
        await asyncio.sleep(self._form.calm_s)
        history.calm_slack_s = max(history.calm_slack_s, 2 * watch.lateness_s)
        watch.complain()
        self._load.complain()
        await self._count_claims()

    async def _count_claims(self) -> tuple[int, int]:
        """The claims won and lost since this was asked last, which are added to the run's."""
        won, lost = await self._watch.claims()
        self._history.claims_won += won
        self._history.claims_lost += lost
        return won, lost

    async def _suffer(self, fault: Fault) -> None:
        farm, watch = self._farm, self._watch
        watch.lateness_s = 0.0
        run = FaultRun(fault.name, time.time())
        self._history.faults.append(run)
        run.settled = float("inf")  # while it lasts
        async with fault.inject(farm) as reach:
            _note(run, reach)
            run.struck = time.time()
            await asyncio.sleep(fault.hold_s)
        run.healed = time.time()
        await self._settled(run)
        run.slack_s = 2 * watch.lateness_s
        run.claims_won, run.claims_lost = await self._count_claims()

    async def _settled(self, run: FaultRun) -> None:
        """Until instances, doctors and nodes are well again and said to be, each within a bound.

        What does not come in time is for the checker to say.
        """
        await self._until(lambda: self._is_clear(run.healed))
        run.cleared = time.time()
        await self._until(self._farm.cluster.is_whole, WHOLE_S)
        run.settled = time.time()
        await self._until(lambda: self._watch.names_nothing(run.settled))
        run.unnamed = time.time()

    async def _until(
        self, condition: Callable[[], Awaitable[bool]], within_s: float = SETTLE_S
    ) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not await condition():
                    await asyncio.sleep(POLL_S)

    async def _is_clear(self, healed: float) -> bool:
        watch, farm = self._watch, self._farm
        if not all(watch.acknowledged_since(number, healed) for number in NUMBERS):
            return False
        ready = all([await farm.is_ready(number) for number in NUMBERS])
        return ready and not self._named(healed)

    def _named(self, since: float) -> bool:
        """Whether the newest word of any doctor names a fault, or is older than ``since``."""
        newest = {each.instance: each for each in self._history.diagnoses if each.at >= since}
        return len(newest) < len(NUMBERS) or any(
            each.status != 200 or NAMES.intersection(each.codes) for each in newest.values()
        )

    async def _look_back(self) -> None:
        """The log, the rest of every reader's stream, the read models, the output."""
        history = self._history
        history.facts = await read_log(self._farm.cluster.client_urls)
        head = history.facts[-1].sequence
        shown = max(fact.sequence for fact in history.facts if fact.type != "task.heartbeat")
        await asyncio.gather(*(reader.read_to(shown, DRAIN_S) for reader in self._readers))
        history.readings = [reader.reading for reader in self._readers]
        for number in NUMBERS:
            history.views.append(await views_of(number, self._farm.addresses[number], head))
        history.answered_hang_ups = self._load.answered
        history.output = {n: each.output for n, each in self._farm.instances.items()}


def _note(run: FaultRun, reach: Reach) -> None:
    run.nodes, run.quorum = reach.nodes, reach.quorum
    run.apart, run.stranded = reach.apart, reach.stranded
    run.silent, run.behind, run.clocks = reach.silent, reach.behind, reach.clocks
    run.lag_s = reach.lag_s


async def run_campaign(folder: Path, form: Form) -> History:
    """A whole run on a farm of its own; its processes have ended on return.

    The record is kept beside what the processes printed, also that of a run that broke off.
    """
    history = History()
    try:
        async with running_farm(folder, history) as farm:
            await Campaign(farm, history, form).run()
    finally:
        (folder / "history.msgpack").write_bytes(msgspec.msgpack.encode(history))
    return history
