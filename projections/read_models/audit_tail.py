"""Keeps the audit rows up with the stream AUDIT: one tail per process, its own checkpoint.

What this instance has written itself is known already, with its sequence; only what lies between
is read from the stream. Rows follow the stream, so they can be thrown away: a rebuilt file is
filled again from what the stream still holds, and what the stream has forgotten leaves the rows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import msgspec
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed

from projections.read_models import audit
from projections.read_models.bulk import Row
from projections.read_models.database import Database
from projections.read_models.sqlite_file import DatabaseUnavailable
from streams.jetstream.audit_stream import TrailEntry, TrailExtent, TrailMessage
from streams.log import LogReset, LogUnavailable, TopologyMismatch

BATCH = 1_000
MAX_OWN = 10_000  # entries kept until they are rows; more are read from the stream
RETRY_S = 0.25
AGAIN_S = 1.0
TRIM_S = 60.0
DOUBT_S = 10.0  # a stream that ends before the rows is asked again; an election takes less

log = structlog.get_logger("holdfast.audit.tail")

T = TypeVar("T")
Messages = Sequence[tuple[int, TrailEntry | TrailMessage]]
"""Messages of the stream, as they were written or read, and their sequences."""
# Hears of a message that is no entry: its sequence, its subject, and why.
OnBad = Callable[[int, str, str], None]


class TailLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long it is from one look at the stream to the next."""

    poll_s: float = 0.25  # while the stream grows
    rest_s: float = 1.0  # while it does not grow; an entry of this instance is looked for at once


LIMITS = TailLimits()


class Source(Protocol):
    """The stream; see `streams.jetstream.audit_stream.Trail`."""

    async def ensure(self) -> None:
        """Make it if it is not there."""
        ...

    async def extent(self) -> TrailExtent:
        """What it holds. Raises LogReset, LogUnavailable."""
        ...

    async def read(self, after: int, limit: int) -> Sequence[TrailMessage]:
        """The first messages above ``after``. Raises LogUnavailable."""
        ...


class AuditTail:
    """Follows the stream into the rows; ``on_bad`` is called for what is no entry."""

    def __init__(
        self, source: Source, database: Database, on_bad: OnBad, limits: TailLimits = LIMITS
    ) -> None:
        self._limits = limits
        self._source = source
        self._database = database
        self._on_bad = on_bad
        self._news_after = 0
        self._position = 0
        self._own: dict[int, TrailEntry] = {}
        self._written = asyncio.Event()
        self._away = False

    def stored(self, entries: Sequence[tuple[int, TrailEntry]]) -> None:
        """Take in what this instance has written, and where it stands."""
        if len(self._own) < MAX_OWN:
            self._own.update(entries)  # what is a row by now leaves with the next rows
        self._written.set()

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
                    if not self._away:
                        log.warning("audit_trail_unavailable", error=str(error))
                    self._away = True
                    await asyncio.sleep(AGAIN_S)
        finally:
            trimming.cancel()
            await asyncio.wait([trimming])

    async def _follow(self) -> None:
        await self._source.ensure()
        extent = await self._source.extent()
        checkpoint = await _persistently(lambda: self._database.checkpoint(audit.STREAM))
        if checkpoint is not None and checkpoint.epoch == extent.epoch:
            extent = await self._settled(extent, checkpoint.sequence)
        epoch = extent.epoch
        self._away = False
        self._own.clear()  # of another stream, perhaps
        self._position = await _persistently(lambda: self._start(extent))
        # What is no entry is reported once: up to here an earlier process has read.
        self._news_after = self._position or extent.head
        while extent.epoch == epoch and extent.head >= self._position:
            grows = self._position < extent.head
            while self._position < extent.head:
                await self._advance(extent)
            await asyncio.sleep(self._limits.poll_s)
            if not grows:
                await self._rest()
            self._written.clear()
            extent = await self._settled(await self._source.extent(), self._position)
        raise LogReset(f"it ends at {extent.head}, and was read up to {self._position}")

    async def _rest(self) -> None:
        """Wait until this instance has written, or another one may have."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.rest_s - self._limits.poll_s):
                await self._written.wait()

    async def _settled(self, extent: TrailExtent, known: int) -> TrailExtent:
        """``extent``, or what it is found to be once it is certain that it ends below ``known``."""
        epoch, deadline = extent.epoch, asyncio.get_running_loop().time() + DOUBT_S
        while extent.epoch == epoch and extent.head < known:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(self._limits.poll_s)
            extent = await self._source.extent()
        return extent

    async def _start(self, extent: TrailExtent) -> int:
        """From where to read: the checkpoint, or the beginning of a stream that is another."""
        checkpoint = await self._database.checkpoint(audit.STREAM)
        if checkpoint is None:
            return 0
        if checkpoint.epoch == extent.epoch and checkpoint.sequence <= extent.head:
            return checkpoint.sequence
        await audit.start_anew(self._database, extent.epoch)
        return 0

    async def _advance(self, extent: TrailExtent) -> None:
        """Write the rows of what comes next."""
        messages = self._next_own() or await self._read_next()
        reached = messages[-1][0] if messages else extent.head
        rows: list[Row] = []
        for sequence, message in messages:
            try:
                rows.append(audit.row(sequence, message.id, message.payload))
            except (ValueError, RecursionError) as error:
                if sequence > self._news_after:
                    self._on_bad(sequence, message.subject, str(error))
        await _persistently(lambda: audit.apply(self._database, rows, reached, extent.epoch))
        self._position = reached
        self._own = {place: entry for place, entry in self._own.items() if place > reached}

    def _next_own(self) -> Messages:
        """What follows directly and was written here."""
        found: list[tuple[int, TrailEntry]] = []
        place = self._position + 1
        while len(found) < BATCH and (entry := self._own.get(place)) is not None:
            found.append((place, entry))
            place += 1
        return found

    async def _read_next(self) -> Messages:
        """What follows, from the stream."""
        read = await self._source.read(self._position, BATCH)
        return [(message.sequence, message) for message in read]

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
