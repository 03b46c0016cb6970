"""Folds the log into fresh read models: to replace the live ones, or to check them row by row."""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TextIO

import msgspec

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.integrity.verify import Comparison, compare
from projections.projector import Projector
from projections.read_models.copies import copy_of
from projections.read_models.database import Database
from projections.read_models.restore import open_read_models
from projections.read_models.sqlite_file import DatabaseUnavailable, discard
from service.cli.log_access import any_log, own_log
from service.core.log_clock import LogClock
from service.runtime.data_folder import READ_MODELS, DataFolder
from service.runtime.tuning import uncollected
from service.settings.config import Settings
from streams.log import BadFact, Fact, Log, LogUnavailable

SHOW_EVERY_S = 1.0
SILENCE_S = 5.0


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild folded: up to which sequence, and how many seconds it took."""

    sequence: int
    took_s: float


async def refold(source: Log, database: Database, up_to: int, out: TextIO | None = None) -> Rebuilt:
    """Fold the log from sequence 1 to ``up_to`` into an empty database, saying how far it is.

    Raises DatabaseUnavailable, LogUnavailable.
    """
    began = shown = time.monotonic()
    state = await source.state()
    clock = LogClock()
    clock.observe(state.at)
    board = Board(SharingRule(), "rebuild")
    board.is_placing = False
    projector = Projector(
        source,
        board,
        database,
        epoch=state.epoch,
        now=clock.now,
        observe_times=clock.observe_facts,
        news_after=up_to,
    )
    flushing = asyncio.create_task(projector.flush_forever())
    try:
        with uncollected():
            async for batch in _batches_up_to(source, up_to):
                await projector.step(batch)
                if out and time.monotonic() - shown >= SHOW_EVERY_S:
                    shown = time.monotonic()
                    _show(out, board.sequence, up_to, shown - began)
    finally:
        flushing.cancel()
        await asyncio.wait([flushing])
    await projector.arrive()
    projector.reach(up_to)
    await projector.flush()
    return Rebuilt(up_to, time.monotonic() - began)


async def _batches_up_to(source: Log, up_to: int) -> AsyncGenerator[list[Fact | BadFact]]:
    """Everything from sequence 1 to ``up_to``, whose own message may have expired long ago."""
    reached, tail = 0, aiter(source.follow(0))
    while reached < up_to:
        try:
            async with asyncio.timeout(SILENCE_S):
                batch = await anext(tail)
        except TimeoutError:
            rest = await source.scan(reached, 1)
            if rest and rest[0].sequence <= up_to:
                raise LogUnavailable(f"the log does not deliver sequence {reached + 1}") from None
            return
        reached = batch[-1].sequence
        yield [fact for fact in batch if fact.sequence <= up_to]


def _show(out: TextIO, sequence: int, up_to: int, seconds: float) -> None:
    left_s = (up_to - sequence) * seconds / max(sequence, 1)
    share = 100 * sequence / max(up_to, 1)
    print(
        f"  {sequence:,} of {up_to:,} ({share:.0f} %), {sequence / seconds:,.0f} a second, "
        f"{left_s:.0f} s left",
        file=out,
        flush=True,
    )


async def replace_read_models(settings: Settings, out: TextIO = sys.stdout) -> Rebuilt:
    """Rebuild the read models of a data folder that no process holds. Raises DataFolderBusy."""
    path = settings.data_dir / READ_MODELS
    fresh = path.with_suffix(".fresh")
    async with AsyncExitStack() as stack:
        stack.enter_context(DataFolder.acquire(settings.data_dir, settings.executor.instance_id))
        source = await own_log(settings, stack)
        head = (await source.state()).head
        print(f"folding {head:,} facts into {path}", file=out, flush=True)
        discard(fresh)
        database = await open_read_models(fresh)
        try:
            rebuilt = await refold(source, database, head, out)
        finally:
            await database.close()
        discard(path)
        fresh.replace(path)
        return rebuilt


async def verify_read_models(
    settings: Settings, out: TextIO = sys.stdout
) -> tuple[Rebuilt, Comparison]:
    """Fold the log again, up to where the live read models are, and compare row by row.

    Works beside a running instance: it is asked nothing, its file is copied as of one moment.
    """
    path = settings.data_dir / READ_MODELS
    if not path.exists():
        raise DatabaseUnavailable(f"there are no read models at {path}")
    async with AsyncExitStack() as stack:
        source = await any_log(settings, stack)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=settings.data_dir)))
        copy, fresh = work / "live.sqlite", work / "rebuilt.sqlite"
        sequence = await asyncio.to_thread(copy_of, path, copy)
        print(f"folding {sequence:,} facts again, to compare with {path}", file=out, flush=True)
        database = await open_read_models(fresh)
        try:
            rebuilt = await refold(source, database, sequence, out)
        finally:
            await database.close()
        is_gone = partial(_is_gone, source, asyncio.get_running_loop())
        return rebuilt, await asyncio.to_thread(compare, copy, fresh, is_gone=is_gone)


def _is_gone(source: Log, loop: asyncio.AbstractEventLoop, sequence: int) -> bool:
    """Whether the log has no message at ``sequence`` any more; asked from another thread."""
    scan = source.scan(sequence - 1, 1)
    found = asyncio.run_coroutine_threadsafe(scan, loop).result(SILENCE_S)
    return not found or found[0].sequence != sequence
