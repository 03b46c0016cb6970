"""Keeps the audit rows up with the stream AUDIT: one tail per process, its own checkpoint.

Rows follow the stream, so they can be thrown away: a rebuilt file is filled again from what the
stream still holds, and what the stream has forgotten leaves the rows, too.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed

from projections import audit
from projections.bulk import Row
from projections.database import Database, DatabaseUnavailable
from streams.log import LogReset, LogUnavailable, TopologyMismatch
from streams.trail import TrailExtent, TrailMessage

RETRY_S = 0.25
AGAIN_S = 1.0
TRIM_S = 60.0

log = structlog.get_logger("holdfast.audit.tail")

T = TypeVar("T")
# Hears of a message that is no entry: its sequence, its subject, and why.
OnBad = Callable[[int, str, str], None]


class Source(Protocol):
    """The stream; see `streams.trail.Trail`."""

    async def ensure(self) -> None:
        """Make it if it is not there."""
        ...

    async def extent(self) -> TrailExtent:
        """What it holds. Raises LogReset, LogUnavailable."""
        ...

    def follow(self, after: int) -> AsyncIterator[list[TrailMessage]]:
        """Every message above ``after``. Raises LogReset."""
        ...


class AuditTail:
    """Follows the stream into the rows; ``on_bad`` hears of what is no entry."""

    def __init__(self, source: Source, database: Database, on_bad: OnBad) -> None:
        self._source = source
        self._database = database
        self._on_bad = on_bad
        self._news_after = 0

    async def run(self) -> None:
        """Follow for ever; a stream that was made anew is read from its beginning."""
        trimming = asyncio.create_task(self._trim_forever())
        try:
            while True:
                try:
                    await self._follow()
                except LogReset as reason:
                    log.warning("audit_trail_reset", reason=str(reason))
                except (LogUnavailable, TopologyMismatch) as error:
                    log.warning("audit_trail_unavailable", error=str(error))
                    await asyncio.sleep(AGAIN_S)
        finally:
            trimming.cancel()
            await asyncio.wait([trimming])

    async def _follow(self) -> None:
        await self._source.ensure()
        extent = await self._source.extent()
        after = await _persistently(lambda: self._start(extent))
        # What is no entry is told once: up to here an earlier life has read, or nobody misses it.
        self._news_after = after or extent.head
        async for messages in self._source.follow(after):
            await self._take(messages, extent.epoch)

    async def _start(self, extent: TrailExtent) -> int:
        """From where to read: the checkpoint, or the beginning of a stream that is another."""
        checkpoint = await self._database.checkpoint(audit.STREAM)
        if checkpoint is None:
            return 0
        if checkpoint.epoch == extent.epoch and checkpoint.sequence <= extent.head:
            return checkpoint.sequence
        await audit.start_anew(self._database, extent.epoch)
        return 0

    async def _take(self, messages: Sequence[TrailMessage], epoch: str) -> None:
        rows: list[Row] = []
        for message in messages:
            try:
                rows.append(audit.row(message.sequence, message.id, message.payload))
            except (ValueError, RecursionError) as error:
                if message.sequence > self._news_after:
                    self._on_bad(message.sequence, message.subject, str(error))
        reached = messages[-1].sequence
        await _persistently(lambda: audit.apply(self._database, rows, reached, epoch))

    async def _trim_forever(self) -> None:
        while True:
            with suppress(LogUnavailable, LogReset, DatabaseUnavailable):
                await self.trim()
            await asyncio.sleep(TRIM_S)

    async def trim(self) -> None:
        """Let what the stream has forgotten leave the rows."""
        await audit.forget(self._database, (await self._source.extent()).first)


async def _persistently(action: Callable[[], Awaitable[T]]) -> T:
    """Do it as soon as the database lets us."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(DatabaseUnavailable), wait=wait_fixed(RETRY_S)
    ):
        with attempt:
            return await action()
    raise AssertionError("tried for ever")
