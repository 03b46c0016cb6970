"""Offline evidence: read from NATS and SQLite while no instance answers; nothing is changed.

Unfinished plans come from SQLite as of its checkpoint and are folded on with the tail of the log,
in memory. Each source has its own time limit: one that hangs is named, and the others are used.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.log_identity import begins_late
from projections.read_models.database import Database
from projections.read_models.restore import SCHEMA, restore
from service.ops.doctor.evidence import (
    BadEvent,
    Claiming,
    DatabaseHealth,
    Evidence,
    LeaseFigures,
    Load,
    LogHealth,
    Machine,
    Security,
    StaleWrite,
    Writers,
)
from service.ops.doctor.parts import Parts
from service.ops.doctor.sources.history import KEPT_S, LAST_BAD_EVENTS
from service.ops.doctor.sources.refusals import refusals_in, refusals_on
from service.ops.doctor.sources.shapes import expired_leases, waiting_kinds
from service.runtime.private_files import open_to_others
from streams.jetstream.access import URL_ALONE, Credentials
from streams.jetstream.read_only import Inspection
from streams.jetstream.servers import without_password
from streams.log import BadFact, Fact, LogState
from streams.plan.evolve import in_one_go
from streams.plan.state import Result

OPEN_S = 2.5
READ_S = 2.5
PAGE = 1_000
MOST_FACTS = 50_000  # of the tail: further behind, the read models are too old to be folded on


class Places(msgspec.Struct, frozen=True):
    """Where the log and the read models are; "" and None: not known."""

    nats_url: str
    database: Path | None
    api_url: str
    stopped_nats_pid: int | None = None
    access: Credentials = URL_ALONE


class Tail(msgspec.Struct):
    """What the log's newest facts tell, besides what they do to plans."""

    ended: int = 0
    bad: list[BadEvent] = []


class OfflineEvidence:
    """One look; `evidence` says what was seen, None when neither source could be read."""

    def __init__(self, places: Places, parts: Parts) -> None:
        self._places = places
        self._parts = parts
        self._state: LogState | None = None
        self._board: Board | None = None
        self._tail: Tail | None = None
        self._checkpoint = 0

    async def evidence(self, instance: str) -> Evidence | None:
        """Read both sources, as far as they answer."""
        async with AsyncExitStack() as stack:
            log, database = await asyncio.gather(self._open_log(stack), self._open_database(stack))
            if log is None and database is None:
                return None
            await self._fold(log, database)
            entries = await self._refusals(log, database)
        return self._told(instance, entries)

    @property
    def _now(self) -> float:
        return self._state.at if self._state else time.time()

    # -- opening ----------------------------------------------------------------------------

    async def _open_log(self, stack: AsyncExitStack) -> Inspection | None:
        url = self._places.nats_url
        if not url:
            self._parts.skip("log", "its address is not known: set nats.url (NATS_URL)")
            return None

        async def open_() -> Inspection:
            inspection = await Inspection.open(url, timeout_s=OPEN_S, access=self._places.access)
            stack.push_async_callback(inspection.close)
            self._state = await inspection.state()
            return inspection

        opened = await self._parts.take("log", 2 * OPEN_S, open_)
        return opened if isinstance(opened, Inspection) else None

    async def _open_database(self, stack: AsyncExitStack) -> Database | None:
        path = self._places.database
        if path is None or not await asyncio.to_thread(path.exists):
            self._parts.skip(
                "database", f"there is no {path}" if path else "it is on another machine"
            )
            return None

        async def open_() -> Database:
            database = await Database.look(path, SCHEMA, busy_timeout_s=1.0)
            stack.push_async_callback(database.close)
            checkpoint = await database.checkpoint()
            self._checkpoint = checkpoint.sequence if checkpoint else 0
            return database

        opened = await self._parts.take("database", OPEN_S, open_)
        return opened if isinstance(opened, Database) else None

    # -- folding ----------------------------------------------------------------------------

    async def _fold(self, log: Inspection | None, database: Database | None) -> None:
        """The unfinished plans as far as they can be known."""
        board = Board(SharingRule(), "doctor")

        async def load(source: Database) -> None:
            board.restore(await restore(source), self._checkpoint, self._now)

        if database is not None:
            loaded = await self._parts.take("plans in SQLite", READ_S, lambda: load(database))
            if isinstance(loaded, Exception):
                return
        if log is not None:
            tail = await self._parts.take("tail of the log", READ_S, lambda: self._read(log, board))
            if isinstance(tail, Exception) or tail is None:
                return
            self._tail = tail
        board.places.advance(self._now)
        self._board = board

    async def _read(self, log: Inspection, board: Board) -> Tail | None:
        """Fold what is newer than the board, and count what the last minutes brought.

        None: it is too much.
        """
        tail, since, head = Tail(), self._now - KEPT_S, self._state.head if self._state else 0
        if head - board.sequence > MOST_FACTS:
            return None
        async for facts in _pages(log, max(min(board.sequence, head - 5 * PAGE), 0), head):
            for fact in facts:
                if fact.sequence > board.sequence:
                    board.apply(fact, max(self._now, fact.at))
                if fact.at >= since:
                    _count(tail, fact)
            await asyncio.sleep(0)
        return tail

    # -- refusals ---------------------------------------------------------------------------

    async def _refusals(
        self, log: Inspection | None, database: Database | None
    ) -> tuple[StaleWrite, ...] | None:
        """Refused writes: from the stream AUDIT if it answers, else as SQLite has them."""
        since = self._now - KEPT_S
        if log is not None:
            found = await self._parts.take("audit", READ_S, lambda: refusals_on(log, since))
            if not isinstance(found, Exception):
                return found
        if database is not None:
            name = "audit in SQLite"
            found = await self._parts.take(name, READ_S, lambda: refusals_in(database, since))
            if not isinstance(found, Exception):
                return found
        return None

    def _security(self) -> Security | None:
        """What the data folder alone tells."""
        if self._places.database is None:
            return None
        folder = self._places.database.parent
        found = open_to_others(folder)
        return Security(open_paths={str(folder): found} if found else {})

    # -- telling ----------------------------------------------------------------------------

    def _told(self, instance: str, entries: tuple[StaleWrite, ...] | None) -> Evidence:
        return Evidence(
            at=self._now,
            instance=instance,
            url=self._places.api_url,
            window_s=KEPT_S,
            machine=Machine(
                offline=True,
                log=self._log_health(),
                database=self._database_health(),
                bad_events=tuple(self._tail.bad[-LAST_BAD_EVENTS:]) if self._tail else (),
            ),
            claiming=self._claiming(),
            leases=self._leases(),
            writers=Writers(window=None, entries=entries),
            load=self._load(),
            streams=None,
            security=self._security(),
            why_not="only a running instance knows it, and none answers",
        )

    def _claiming(self) -> Claiming | None:
        board = self._board
        if board is None:
            return None
        backlog = board.places.backlog()
        oldest = [since for _, since in backlog.values() if since is not None]
        return Claiming(
            recent=None,
            ready=backlog["ready"][0],
            refining=backlog["refining"][0],
            oldest_age_s=max((self._now - since for since in oldest), default=0.0),
            waiting=in_one_go(waiting_kinds(board, self._now)),
        )

    def _leases(self) -> LeaseFigures | None:
        board = self._board
        if board is None:
            return None
        return LeaseFigures(
            running=board.places.running_count,
            expired=expired_leases(board, self._now),
            expired_count=len(board.places.expired()),
            window=None,
        )

    def _load(self) -> Load | None:
        if self._board is None:
            return None
        return Load(
            window=None,
            backlog=self._board.places.claimable,
            backlog_before=None,
            ended=self._tail.ended if self._tail else None,
        )

    def _log_health(self) -> LogHealth:
        part, state, names = self._parts.of("log"), self._state, self._places.access.names
        return LogHealth(
            url=without_password(self._places.nats_url),
            answers=state is not None,
            detail=part.detail or "connected",
            first=state.first if state else 0,
            head=state.head if state else 0,
            size_bytes=state.size_bytes if state else 0,
            max_bytes=state.max_bytes if state else None,
            stopped_pid=None if state else self._places.stopped_nats_pid,
            missing=begins_late(state) if state else None,
            late_replicas=state.late if state else (),
            stream=names.plans_stream,
            audit_stream=names.audit_stream,
        )

    def _database_health(self) -> DatabaseHealth:
        part = self._parts.of("database")
        head = self._state.head if self._state else self._checkpoint
        return DatabaseHealth(
            path=str(self._places.database or ""),
            error=None if part.state == "answered" else part.detail,
            sequence=self._checkpoint,
            behind=max(head - self._checkpoint, 0) if part.state == "answered" else 0,
        )


async def _pages(log: Inspection, after: int, up_to: int) -> AsyncIterator[list[Fact | BadFact]]:
    while after < up_to:
        facts = await log.log.scan(after, PAGE)
        if not facts:
            return
        after = facts[-1].sequence
        yield facts


def _count(tail: Tail, fact: Fact | BadFact) -> None:
    if isinstance(fact, BadFact):
        tail.bad.append(BadEvent(sequence=fact.sequence, reason=fact.reason))
    elif isinstance(fact.event, Result):
        tail.ended += 1
