"""A log in memory, read models that were folded from it, and a store of snapshots of them."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.projector import Projector
from projections.read_models.database import Database
from projections.read_models.restore import open_read_models, restore
from service.snapshots.fetching import FetchLimits, HowFetched, fetch_read_models
from service.snapshots.taking import take
from streams.log import Draft, LogState
from streams.plan.events import Submitted, TaskSpec
from streams.snapshot_store import ReadModelSnapshot
from tests.memory_log import MemoryLog
from tests.memory_snapshots import MemorySnapshots

PLAN = Submitted(tasks=(TaskSpec(id="t", kind="k"),))
AT = 1_000.0  # when snapshots are taken, by the log's clock
SMALL = FetchLimits(worth_facts=1)


async def submit(log: MemoryLog, *names: str) -> None:
    for name in names:
        await log.append(Draft(plan_id=name, task_id=None, expected=0, events=(PLAN,)))


@asynccontextmanager
async def folded(log: MemoryLog, path: Path) -> AsyncIterator[Database]:
    """The read models at ``path``, with all that ``log`` has beyond what they hold."""
    database = await open_read_models(path)
    try:
        checkpoint = await database.checkpoint()
        board = Board(SharingRule(), "a")
        reached = checkpoint.sequence if checkpoint else 0
        board.restore(await restore(database), reached, time.time())
        projector = Projector(
            log,
            board,
            database,
            epoch=log.epoch,
            now=time.time,
            observe_times=lambda _: None,
            witness=checkpoint.witness if checkpoint else None,
        )
        await projector.step(await log.scan(reached, 10_000))
        await projector.flush()
        yield database
    finally:
        await database.close()


async def plans_at(log: MemoryLog, path: Path) -> set[str]:
    """The plans that read models at ``path`` show at the end of ``log``."""
    async with folded(log, path) as database:
        rows = await database.read("SELECT plan_id FROM plans", (), lambda _, row: str(row[0]))
    return set(rows)


class SnapshotWorld:
    """Read models of eight plans at ``live``; ``empty`` is the place of another instance's."""

    def __init__(self, folder: Path) -> None:
        self.log = MemoryLog()
        self.store = MemorySnapshots()
        (folder / "old").mkdir()
        (folder / "new").mkdir()
        self.live = folder / "old" / "x.sqlite"
        self.copy = folder / "old" / "x.sqlite.snapshot"
        self.empty = folder / "new" / "x.sqlite"
        self.told: list[HowFetched] = []

    async def fold(self) -> None:
        await submit(self.log, *(f"p{n}" for n in range(8)))
        async with folded(self.log, self.live):
            pass

    async def take(self) -> ReadModelSnapshot:
        writing = await self.store.begin()
        assert writing is not None
        return await take(self.live, self.copy, writing, AT)

    async def fetch(self, log: MemoryLog | None = None, *, limits: FetchLimits = SMALL) -> bool:
        source = log or self.log

        async def settled(_: int) -> LogState:
            return await source.state()

        return await fetch_read_models(
            self.empty, source, settled, self.store.open, self.told.append, limits
        )

    def left(self) -> list[str]:
        """The files in both folders, but what SQLite keeps beside the file that was copied."""
        beside = {f"{self.live.name}-wal", f"{self.live.name}-shm"}
        old = {each.name for each in self.live.parent.iterdir()} - beside
        return sorted([*old, *(each.name for each in self.empty.parent.iterdir())])
