"""A feed on a log in memory, clients that remember what they were sent, and a hand that writes."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from projections.feed import Feed, NoStream
from projections.feed.client import Client, Gone
from projections.feed.entry import Interest
from projections.feed.limits import LIMITS, FeedLimits
from service.settings.config import SseSettings
from streams.codec import encode_payload
from streams.plan.events import (
    TYPE_NAMES,
    Claimed,
    Event,
    Finished,
    Heartbeat,
    Retried,
    Submitted,
    TaskSpec,
)
from streams.subjects import subject_of
from tests.memory_log import MemoryLog

SUBMITTED = Submitted(tasks=(TaskSpec(id="a", kind="echo"),))
CLAIMED = Claimed(owner="w", attempt=1, lease_s=15)
HEARTBEAT = Heartbeat(owner="w", attempt=1, lease_s=15)
FINISHED = Finished(status="COMPLETED")
RETRIED = Retried(task_id="a")


class Counts:
    """A meter that remembers sums."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        name = name + "".join(f" {value}" for value in labels.values())
        self.sums[name] = self.sums.get(name, 0) + amount

    def observe(self, name: str, value: float, **_: str) -> None:
        self.sums[name] = self.sums.get(name, 0) + value
        self.count(f"{name} observations")

    def set(self, name: str, value: float, **_: str) -> None:
        self.sums[name] = value

    def __getitem__(self, name: str) -> float:
        return self.sums.get(name, 0)


class Block(msgspec.Struct, frozen=True):
    """One event as a client sees it; ``id`` None when the block has none."""

    name: str
    id: int | None
    data: Any


def blocks(text: bytes) -> list[Block]:
    """Every complete block of a stream, pings left out."""
    found: list[Block] = []
    for block in text.decode().split("\n\n")[:-1]:
        fields = dict(
            line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")
        )
        number = int(fields["id"]) if "id" in fields else None
        found.append(Block(fields["event"], number, msgspec.json.decode(fields["data"])))
    return found


class Watcher:
    """A client's end of the line. It may be slow (``lag`` chooses when), frozen, or gone."""

    name = "watcher:1"

    def __init__(self, lag: Callable[[], int] = lambda: 0) -> None:
        self.text = b""
        self.writes = 0
        self.frozen = False
        self.gone = False
        self.ended = False
        self._lag = lag
        self._turns = 0

    def write(self, data: bytes) -> bool:
        if self.gone:
            raise Gone
        assert not self.ended, "something was written after the end"
        self.text += data
        self.writes += 1
        self._turns = self._lag()
        return not self._turns and not self.frozen

    async def drained(self) -> None:
        await asyncio.sleep(0)
        while (self.frozen or self._turns) and not self.gone:
            self._turns = max(self._turns - 1, 0)
            await asyncio.sleep(0)
        if self.gone:
            raise Gone

    def end(self, last: bytes) -> None:
        if not self.gone:
            self.text += last
        self.ended = True

    @property
    def blocks(self) -> list[Block]:
        return blocks(self.text)

    @property
    def signals(self) -> list[str]:
        return [block.name for block in self.blocks if "." not in block.name]

    @property
    def events(self) -> list[Block]:
        return [block for block in self.blocks if "." in block.name]

    @property
    def sequences(self) -> list[int]:
        return [block.data["sequence"] for block in self.events]

    @property
    def last_id(self) -> int | None:
        ids = [block.id for block in self.blocks if block.id is not None]
        return ids[-1] if ids else None


class World:
    """Log, feed, and the projector's part: `publish_up_to` says how far the feed has heard."""

    def __init__(self, limits: FeedLimits = LIMITS, **settings: float) -> None:
        self.log = MemoryLog()
        self.meter = Counts()
        self.settings = SseSettings(**{"heartbeat_s": 300, **settings})  # type: ignore[arg-type]
        self.feed = Feed(
            self.settings,
            self.log,
            self.meter,
            time.time,
            position=0,
            epoch=self.log.epoch,
            limits=limits,
        )
        self.written: list[tuple[int, str, str | None, Event]] = []

    def write(self, event: Event, plan_id: str = "p", task_id: str | None = None) -> int:
        """Put a fact into the log."""
        sequence = self.log.publish(subject_of(plan_id, task_id), encode_payload(event))
        self.written.append((sequence, plan_id, task_id, event))
        return sequence

    def claims(self, count: int, plan_id: str = "p", task_id: str = "a") -> int:
        """Put so many claims into the log; the last sequence."""
        return [self.write(CLAIMED, plan_id, task_id) for _ in range(count)][-1]

    async def publish(self, up_to: int | None = None) -> None:
        """Let the feed hear of what is in the log."""
        facts = await self.log.scan(self.feed.position, 1_000_000)
        facts = [fact for fact in facts if up_to is None or fact.sequence <= up_to]
        if facts:
            self.feed.publish(facts, facts[-1].sequence)

    async def connect(
        self,
        watcher: Watcher | None = None,
        cursor: int | None = None,
        **interest: Any,
    ) -> tuple[Client, Watcher]:
        watcher = watcher or Watcher()
        opening = await self.feed.prepare(Interest(**interest), cursor)
        assert not isinstance(opening, NoStream), opening
        return self.feed.attach(opening, watcher), watcher


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    """With the feed's own loop."""
    task = asyncio.create_task(world.feed.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], object], what: str, within_s: float = 10) -> None:
    """Wait for something to be true."""
    try:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s: {what}") from None


def dice(seed: int) -> random.Random:
    return random.Random(seed)


def wanted(
    written: Sequence[tuple[int, str, str | None, Event]], interest: Interest, after: int
) -> list[int]:
    """The sequences that a client with this interest and first cursor has to see."""
    return [
        sequence
        for sequence, plan_id, task_id, event in written
        if sequence > after
        and TYPE_NAMES[type(event)] in interest.types
        and interest.plan_id in (None, plan_id)
        and interest.task_id in (None, task_id)
    ]
