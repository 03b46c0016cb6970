"""Takes snapshots of the read models for instances to come, one in the cluster at a time.

Nothing waits for it: what stops it is reported, and it is tried again minutes later. It runs on
the API loop, which only hands pieces on; copying and compressing have threads.
"""

import asyncio
import time
from math import inf

import msgspec
import structlog

from projections.read_models.restore import SCHEMA
from projections.read_models.sqlite_file import DatabaseUnavailable, discard
from service.core.core import Core
from service.runtime.data_folder import READ_MODELS
from service.snapshots.fitness import other_log
from service.snapshots.store import OpenStore
from service.snapshots.taking import take
from streams.log import LogReset, LogUnavailable
from streams.snapshot_store import KeptSnapshot, SnapshotUnavailable

log = structlog.get_logger("holdfast.snapshots")


class SnapshotPace(msgspec.Struct, frozen=True, kw_only=True):
    """Looks each ``look_s``, and takes snapshots in ``share`` of the time at most.

    It tries again ``busy_s`` after another instance was at it, and ``retry_s`` after a fault.
    """

    look_s: float = 1.0
    busy_s: float = 30.0
    retry_s: float = 300.0
    share: float = 0.1


class Snapshots:
    """Takes the snapshots of one instance; lives on the API loop."""

    def __init__(
        self,
        core: Core,
        open_store: OpenStore,
        *,
        every_facts: int,
        pace: SnapshotPace = SnapshotPace(),  # noqa: B008 - it is frozen
    ) -> None:
        self._core = core
        self._open_store = open_store
        self._every_facts = every_facts
        self._pace = pace
        self._live = core.settings.data_dir / READ_MODELS
        self._copy = self._live.with_name(f"{READ_MODELS}.snapshot")
        self._due_sequence: float = every_facts
        self._not_before = 0.0  # monotonic

    async def run(self) -> None:
        """Take what is due, again and again, for ever."""
        await asyncio.to_thread(discard, self._copy)  # of a process that was killed
        while True:
            await self.turn()
            await asyncio.sleep(self._pace.look_s)

    async def turn(self) -> None:
        """Take one if it is due, as far as is known without asking."""
        conditions = self._core.conditions
        if not self._is_due or time.monotonic() < self._not_before:
            return
        try:
            await self._look()
        except (
            DatabaseUnavailable,
            LogReset,
            LogUnavailable,
            OSError,
            SnapshotUnavailable,
        ) as error:
            self._not_before = time.monotonic() + self._pace.retry_s
            conditions.snapshots_stopped(str(error))
        else:
            conditions.snapshots_stopped(None)

    @property
    def _is_due(self) -> bool:
        return self._core.projector.flushed_sequence >= self._due_sequence

    async def _look(self) -> None:
        """Look what is kept, and take a snapshot if none is new enough."""
        store = await self._open_store()
        try:
            await self._plan(await store.newest())
            if not self._is_due or time.monotonic() < self._not_before:
                return
            writing = await store.begin()
            if writing is None:
                self._not_before = time.monotonic() + self._pace.busy_s
                return
            taken = await take(self._live, self._copy, writing, self._core.now())
        finally:
            await store.close()
        log.info(
            "snapshot_taken",
            sequence=taken.sequence,
            bytes=taken.bytes,
            took_s=round(taken.took_s, 1),
        )

    async def _plan(self, newest: KeptSnapshot | None) -> None:
        """Note from which sequence and time on another snapshot is due."""
        self._due_sequence = self._every_facts
        if newest is None:
            return
        kept, core = newest.snapshot, self._core
        if kept.schema > SCHEMA.version:
            self._due_sequence = inf  # instances of a newer version take them from now on
        elif kept.schema == SCHEMA.version and not await other_log(
            kept, await core.log.state(), core.log
        ):
            self._due_sequence = kept.sequence + self._every_facts
            wait_s = kept.at + kept.took_s / self._pace.share - core.now()
            self._not_before = time.monotonic() + max(wait_s, 0.0)
