"""Writes the lives of many plans into the log, past every service: it goes on when one dies.

The facts are such as the service writes, in the order in which it writes them; their sizes and the
interleaving of plans are the dice's.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Raw

from streams.jetstream.log import JetStreamLog
from streams.log import Log
from streams.plan.events import (
    Claimed,
    Completed,
    Event,
    Failed,
    Finished,
    Heartbeat,
    Progress,
    Started,
    Submitted,
    TaskSpec,
)
from tests.appending import append

TASK_IDS = tuple(f"t{number}" for number in range(10))
TOGETHER = 24  # plans that are under way at the same time
LARGEST_OUTPUT = 2_000


class Load:
    """Plans, one after the other on ``TOGETHER`` lanes, until ``events`` are written.

    ``written`` counts the events so far, ``plans`` names those that have begun.
    """

    def __init__(self, log: Log, luck: random.Random, events: int, rate: float) -> None:
        self.written = 0
        self.last = 0
        self.plans: list[str] = []
        self._log = log
        self._luck = luck
        self._events = events
        self._rate = rate
        self._begun = 0.0

    async def run(self) -> None:
        """Write all of it; at most ``rate`` events per second."""
        self._begun = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for lane in range(TOGETHER):
                group.create_task(self._lane(lane))

    async def written_at_least(self, events: int) -> None:
        """Wait until so many have been written."""
        while self.written < min(events, self._events):
            await asyncio.sleep(0.005)

    async def _lane(self, lane: int) -> None:
        number = 0
        while self.written < self._events:
            await self._plan(f"plan-{lane}-{number}")
            number += 1

    async def _plan(self, plan_id: str) -> None:
        tasks = tuple(TaskSpec(id=task_id, kind="outside") for task_id in TASK_IDS)
        head = await self._write(plan_id, None, 0, Submitted(name=plan_id, tasks=tasks))
        self.plans.append(plan_id)
        waiting = {task_id: self._life(plan_id) for task_id in TASK_IDS}
        reached = dict.fromkeys(TASK_IDS, 0)
        while waiting:
            task_id = self._luck.choice(list(waiting))
            step = [next(waiting[task_id], None) for _ in range(self._luck.choice((1, 1, 1, 3)))]
            events = [event for event in step if event is not None]
            if len(events) < len(step):
                del waiting[task_id]
            if events:
                reached[task_id] = await self._write(plan_id, task_id, reached[task_id], *events)
        await self._write(plan_id, None, head, Finished(status="COMPLETED"))

    def _life(self, plan_id: str):  # noqa: ANN202 - an iterator of events
        owner = f"worker of {plan_id}"
        attempt = 1
        yield Claimed(owner=owner, attempt=attempt, lease_s=600)
        if self._luck.random() < 0.1:
            yield Failed(owner=owner, attempt=attempt, error_type="dice", retry_in_s=0)
            attempt += 1
            yield Claimed(owner=owner, attempt=attempt, lease_s=600, lane="refining")
        yield Started(owner=owner, attempt=attempt)
        for _ in range(self._luck.randrange(3)):
            yield Heartbeat(owner=owner, attempt=attempt, lease_s=600)
            yield Progress(owner=owner, attempt=attempt, data=self._text())
        yield Completed(owner=owner, attempt=attempt, output=self._text())

    def _text(self) -> Raw:
        return Raw(b'"%b"' % (b"x" * self._luck.choice((3, 30, LARGEST_OUTPUT))))

    async def _write(self, plan_id: str, task_id: str | None, expected: int, *events: Event) -> int:
        due = self._begun + self.written / self._rate
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        sequence = await append(self._log, plan_id, task_id, expected, *events)
        self.written += len(events)
        self.last = max(self.last, sequence)
        return sequence


class Writer:
    """One plan with one running task, whose progress is as large and as frequent as one wants."""

    def __init__(self, log: Log, plan_id: str = "busy") -> None:
        self._log = log
        self._plan_id = plan_id
        self._reached = 0

    async def begin(self) -> None:
        """Submit the plan and claim its task."""
        tasks = (TaskSpec(id="t", kind="outside"),)
        await append(self._log, self._plan_id, None, 0, Submitted(tasks=tasks))
        claimed = Claimed(owner="w", attempt=1, lease_s=600)
        self._reached = await append(self._log, self._plan_id, "t", 0, claimed)

    async def write(self, count: int, size: int = 10) -> int:
        """Append so many events of about ``size`` bytes at once; the last sequence."""
        event = Progress(owner="w", attempt=1, data=Raw(b'"%b"' % (b"x" * size)))
        events = [event] * count
        self._reached = await append(self._log, self._plan_id, "t", self._reached, *events)
        return self._reached

    async def write_steadily(self, rate: float, for_s: float, size: int = 10) -> int:
        """One event at a time for so long; a writer that is late does not hurry."""
        clock = asyncio.get_running_loop().time
        end = clock() + for_s
        while clock() < end:
            due = clock() + 1 / rate
            await self.write(1, size)
            await asyncio.sleep(max(0.0, due - clock()))
        return self._reached


@asynccontextmanager
async def opened(nats_url: str) -> AsyncIterator[JetStreamLog]:
    """The log, without any service."""
    log = await JetStreamLog.connect(nats_url)
    try:
        yield log
    finally:
        await log.close()
