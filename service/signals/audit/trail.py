"""The audit trail: what happened around the log, written once and kept outside of the process.

`Audit.emit` may be called from any thread; it queues an entry and returns. One loop writes the
entries, many in one go: a structured line each (logger `holdfast.audit`), and a message on the
stream AUDIT. While the log does not answer they wait, so the audit of an outage is complete. An
entry that finds no room still has its line, and is counted and reported as dropped.
"""

import asyncio
import itertools
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec
import structlog

from projections.read_models.audit import AuditClass, Entry
from service.settings.config import ObservabilitySettings
from service.signals.audit.encoding import Note, encoded, json_of
from service.signals.audit.events import CLASSES
from service.signals.metrics.registry import Metrics
from streams.jetstream.audit_stream import TrailEntry
from streams.jetstream.drafts import BATCH_MESSAGES
from streams.json_values import text_of
from streams.log import LogUnavailable
from streams.plan.events import NOTHING

TELL_EVERY_S = 5.0  # at most one line of loss in this time
LONGEST_DETAIL = 1_000  # characters
LONGEST_OWNER = 128

_log = structlog.get_logger("holdfast.audit.delivery")

# Called with entries of this instance that are stored, and their sequences in the stream.
OnStored = Callable[[Sequence[tuple[int, TrailEntry]]], None]


class TrailLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many entries may wait, and how long they do."""

    waiting: int = 10_000
    waiting_success: int = 8_000  # the rest is kept for what went wrong
    said_together: int = 250  # in one turn of the loop
    written_together: int = BATCH_MESSAGES  # a batch costs its syncs, whatever its size
    gather_s: float = 0.1  # entries that come together are written together
    gather_success_s: float = 0.25  # successes wait for more of them, until something goes wrong
    gather_most: int = 2_000  # or until so many wait
    retry_s: float = 0.25
    close_s: float = 2.0


LIMITS = TrailLimits()


class Writer(Protocol):
    """Where entries are kept; see `streams.jetstream.audit_stream.Trail.write`."""

    async def write(self, entries: Sequence[TrailEntry]) -> list[int | None]:
        """Store entries; answers their sequences, None for never. Raises LogUnavailable."""
        ...


class Audit:
    """The audit trail of one instance."""

    def __init__(
        self,
        writer: Writer,
        metrics: Metrics,
        instance_id: str,
        now: Callable[[], float],
        settings: ObservabilitySettings,
        on_stored: OnStored = lambda _: None,
        limits: TrailLimits = LIMITS,
    ) -> None:
        """``now`` is log time; `run` must run on the loop on which this is made.

        ``on_stored`` is called with the notes of this instance that the log has stored.
        """
        self._on_stored = on_stored
        self._limits = limits
        self._writer = writer
        self._metrics = metrics
        self._instance_id = instance_id
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._life = secrets.token_hex(8)
        # In order, for the index.
        self._ids = map(f"{self._life}-{{:012x}}".format, itertools.count(1))
        self._notes: deque[Note] = deque()
        self._unwritten: deque[TrailEntry] = deque()
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._to_write = asyncio.Event()
        self._called = False
        self._hurried = False
        self._dropped: Counter[str] = Counter()
        self._told_at = 0.0
        self.apply(settings)

    def apply(self, settings: ObservabilitySettings) -> None:
        """Write from now on what ``settings`` ask for."""
        always = settings.audit_log_enabled
        self.tells_success = always and settings.audit_success_log_enabled
        self._wanted: Mapping[AuditClass, bool] = {
            "always": always,
            "success": self.tells_success,
        }

    def wants(self, event: str) -> bool:
        """Whether an ``event`` would be written now."""
        return self._wanted[CLASSES[event]]

    @property
    def waiting(self) -> int:
        """How many entries are not written yet."""
        return len(self._notes) + len(self._unwritten)

    def emit(  # noqa: PLR0913 - an entry has as many fields as it has
        self,
        event: str,
        *,
        plan_id: str | None = None,
        task_id: str | None = None,
        owner: str | None = None,
        principal: str | None = None,
        attempt: int | None = None,
        expected: object = None,
        actual: object = None,
        trace_id: str | None = None,
        detail: str | None = None,
        at: float | None = None,
        once: str | None = None,
    ) -> None:
        """Note that ``event`` (one of CLASSES) happened. Never blocks, never raises; any thread.

        ``expected`` and ``actual`` are JSON: what the writer assumed, and what was there. ``at`` is
        log time, by default now. ``principal`` is who proved to be the writer. Entries of one
        ``once`` are one, whichever instances say them.
        """
        try:
            kind = CLASSES[event]
            if not self._wanted[kind]:
                return
            entry = Entry(
                at=self._now() if at is None else float(at),
                event=event,
                class_=kind,
                plan_id=plan_id,
                task_id=task_id,
                owner=None if owner is None else text_of(owner, LONGEST_OWNER),
                principal=text_of(principal, LONGEST_OWNER) if principal else None,
                attempt=attempt,
                expected=NOTHING if expected is None else json_of(expected),
                actual=NOTHING if actual is None else json_of(actual),
                trace_id=trace_id,
                instance=self._instance_id,
                detail=None if detail is None else text_of(detail, LONGEST_DETAIL),
            )
            note, limits = Note(entry, once), self._limits
            most = limits.waiting if kind == "always" else limits.waiting_success
            if self.waiting >= most:
                self._encoded([note])  # there is no room for it to wait; its line needs none
                self._drop("queue_full", 1)
                return
            self._notes.append(note)
            self._call(hurry=kind == "always" or len(self._notes) >= limits.gather_most)
        except Exception as error:  # noqa: BLE001 - a report of trouble must not make more
            self._invalid(event, error)

    def _call(self, *, hurry: bool) -> None:
        """Wake the loop, once for all that is noted before it looks."""
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._news.set)
        if hurry and not self._hurried:
            self._hurried = True
            self._loop.call_soon_threadsafe(self._hurry.set)

    # -- writing, on the loop ---------------------------------------------------------------

    async def run(self) -> None:
        """Say and write what is noted, for ever."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._say_forever())
            both.create_task(self._write_forever())

    async def close(self, within_s: float | None = None) -> None:
        """Write what is left, by default within ``TrailLimits.close_s``; call it after `run`."""
        while self._notes:
            self._say()
        try:
            async with asyncio.timeout(self._limits.close_s if within_s is None else within_s):
                while self._unwritten:
                    await self._write_some()
        except (TimeoutError, LogUnavailable):
            self._drop("shutting_down", len(self._unwritten))
        self._unwritten.clear()
        self._tell_dropped()

    async def _say_forever(self) -> None:
        while True:
            await self._gather()
            while self._notes:
                self._say()
                await asyncio.sleep(0)
            self._to_write.set()
            if time.monotonic() - self._told_at >= TELL_EVERY_S:
                self._tell_dropped()

    async def _gather(self) -> None:
        """Wait for a note, and for those that come with it."""
        await self._news.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.gather_success_s):
                await self._hurry.wait()
        await asyncio.sleep(self._limits.gather_s)
        self._news.clear()
        self._hurry.clear()
        self._called = self._hurried = False

    def _say(self) -> None:
        """Give noted entries their lines, and let them be written."""
        count = min(self._limits.said_together, len(self._notes))
        self._unwritten.extend(self._encoded([self._notes.popleft() for _ in range(count)]))

    def _encoded(self, notes: Sequence[Note]) -> list[TrailEntry]:
        return encoded(notes, self._ids, self._invalid)

    async def _write_forever(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            while self._unwritten:
                try:
                    await self._write_some()
                except LogUnavailable:
                    await asyncio.sleep(self._limits.retry_s)
            self._tell_dropped()

    async def _write_some(self) -> None:
        """Write the oldest entries. Raises LogUnavailable; then they stay where they are."""
        notes = list(itertools.islice(self._unwritten, self._limits.written_together))
        places = await self._writer.write(notes)
        for _ in notes:
            self._unwritten.popleft()
        stored = [(place, note) for place, note in zip(places, notes, strict=True) if place]
        self._drop("refused", len(notes) - len(stored))
        for event, count in Counter([note.event for _, note in stored]).items():
            self._metrics.count("agent.audit.written.total", count, event=event)
        # Of one `once` the entry that is stored may be another instance's.
        ours = [(place, note) for place, note in stored if note.id.startswith(self._life)]
        self._on_stored(ours)

    # -- what is lost -----------------------------------------------------------------------

    def _drop(self, reason: str, count: int) -> None:
        if count:
            self._metrics.count("agent.audit.dropped.total", count, reason=reason)
            self._dropped[reason] += count
            with suppress(RuntimeError):  # the loop has ended; `close` has told the rest
                self._call(hurry=True)

    def _invalid(self, event: str, error: Exception) -> None:
        self._drop("invalid", 1)
        with suppress(Exception):
            _log.error("audit_entry_not_taken", audit_event=event, error=repr(error))

    def _tell_dropped(self) -> None:
        """One line for all entries that were lost since the last one."""
        if self._dropped:
            lost, self._dropped = self._dropped, Counter()
            self._told_at = time.monotonic()
            _log.error("audit_entries_dropped", **lost)
