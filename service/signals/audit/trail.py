"""The audit trail: what happened around the log, written once and kept outside of the process.

`Audit.emit` may be called from any thread; it queues an entry and returns. One loop writes the
entries: a structured line each (logger `holdfast.audit`), and a message on the stream AUDIT. While
the log does not answer they wait, so the audit of an outage is complete. An entry that finds no
room still has its line, and is counted and reported as dropped.
"""

import asyncio
import itertools
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec
import structlog
from msgspec import Raw

from projections.read_models.audit import AuditClass, Entry
from projections.read_models.views import moment
from service.runtime.masking import KNOWN
from service.settings.config import ObservabilitySettings
from service.signals.audit.events import CLASSES
from service.signals.log_lines import Lines
from service.signals.metrics.registry import Metrics
from streams.jetstream.audit_stream import TrailEntry
from streams.json_values import text_of
from streams.log import LogUnavailable
from streams.plan.events import NOTHING
from streams.subjects import audit_subject, is_id

TELL_EVERY_S = 5.0  # at most one line of loss in this time
LONGEST_DETAIL = 1_000  # characters
LONGEST_OWNER = 128
LONGEST_JSON = 2_000  # bytes of what was expected, and of what was there

_log = structlog.get_logger("holdfast.audit.delivery")
_lines = logging.getLogger("holdfast.audit")
_LEVELS: Mapping[AuditClass, int] = {"success": logging.INFO, "always": logging.WARNING}
_ENDINGS: Mapping[AuditClass, bytes] = {
    kind: b',"level":"%b","logger":"%b"}'
    % (logging.getLevelName(level).lower().encode(), _lines.name.encode())
    for kind, level in _LEVELS.items()
}
_encode = msgspec.json.Encoder(enc_hook=text_of).encode


# Called with entries of this instance that are stored, and their sequences in the stream.
OnStored = Callable[[Sequence[tuple[int, TrailEntry]]], None]


class TrailLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many entries may wait, and how long they do."""

    waiting: int = 10_000
    waiting_success: int = 8_000  # the rest is kept for what went wrong
    batch: int = 500
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
        self._numbers = itertools.count(1)
        self._notes: deque[TrailEntry] = deque()
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
        self._wanted: Mapping[AuditClass, bool] = {
            "always": always,
            "success": always and settings.audit_success_log_enabled,
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
            try:
                subject = audit_subject(event, plan_id, task_id)
            except ValueError:  # a caller may name what does not exist, with any name
                plan_id = plan_id if plan_id is not None and is_id(plan_id) else None
                task_id = task_id if task_id is not None and is_id(task_id) else None
                subject = audit_subject(event, plan_id, task_id)
            entry = Entry(
                at=self._now() if at is None else float(at),
                event=event,
                class_=kind,
                plan_id=plan_id,
                task_id=task_id,
                owner=None if owner is None else text_of(owner, LONGEST_OWNER),
                principal=text_of(principal, LONGEST_OWNER) if principal else None,
                attempt=attempt,
                expected=_json_of(expected),
                actual=_json_of(actual),
                trace_id=trace_id,
                instance=self._instance_id,
                detail=None if detail is None else text_of(detail, LONGEST_DETAIL),
            )
            # Encoded once: the message, the log line and the row are all made of these bytes.
            note = TrailEntry(
                id=once or f"{self._life}-{next(self._numbers):012x}",  # in order, for the index
                event=event,
                subject=subject,
                payload=KNOWN.json(_encode(entry)),
            )
            limits = self._limits
            most = limits.waiting if kind == "always" else limits.waiting_success
            if self.waiting >= most:
                _say_lines([note])  # there is no room for it to wait; its line needs none
                self._drop("queue_full", 1)
                return
            self._notes.append(note)
            self._call(hurry=kind == "always" or len(self._notes) >= limits.gather_most)
        except Exception as error:  # noqa: BLE001 - a report of trouble must not make more
            self._drop("invalid", 1)
            with suppress(Exception):
                _log.error("audit_entry_not_taken", audit_event=event, error=repr(error))

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
        notes = [self._notes.popleft() for _ in range(min(self._limits.batch, len(self._notes)))]
        self._unwritten.extend(notes)
        _say_lines(notes)

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
        notes = list(itertools.islice(self._unwritten, self._limits.batch))
        places = await self._writer.write(notes)
        for _ in notes:
            self._unwritten.popleft()
        stored = [(place, note) for place, note in zip(places, notes, strict=True) if place]
        self._drop("refused", len(notes) - len(stored))
        for event, count in Counter(note.event for _, note in stored).items():
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

    def _tell_dropped(self) -> None:
        """One line for all entries that were lost since the last one."""
        if self._dropped:
            lost, self._dropped = self._dropped, Counter()
            self._told_at = time.monotonic()
            _log.error("audit_entries_dropped", **lost)


def _json_of(value: object) -> Raw:
    """``value`` as an entry holds it; the text of its beginning when it is too long for one."""
    if value is None:
        return NOTHING
    try:
        data = _encode(value)
    except (ValueError, TypeError):  # half a surrogate pair, for one
        data = b""
    if 0 < len(data) <= LONGEST_JSON:
        return Raw(data)
    return Raw(_encode(text_of(value, LONGEST_JSON // 4)))


def _say_lines(entries: Iterable[TrailEntry]) -> None:
    """The lines of entries, as one record: the logger is asked once for all."""
    said = {kind for kind in _LEVELS if _lines.isEnabledFor(_LEVELS[kind])}
    lines = [_line(entry) for entry in entries if CLASSES[entry.event] in said]
    if lines:
        _lines.log(logging.WARNING, Lines(b"\n".join(lines).decode()))


def _line(entry: TrailEntry) -> bytes:
    """An entry as the log shows it: its time in words, and in the end what every line has."""
    payload = entry.payload
    comma = payload.index(b",")
    at = _encode(moment(float(payload[len(b'{"at":') : comma])))
    return b'{"at":%b%b%b' % (at, payload[comma:-1], _ENDINGS[CLASSES[entry.event]])
