"""Follows the log: folds each fact into the board, and keeps the read models up behind it.

One fold per process. The board is always ahead. Rows are made of what has changed when they are to
be written, and before that of every few thousand facts, so that a task's claim, start and end make
one row. They are merged into a pending set, which one transaction writes together with the
checkpoint. While SQLite is slow or locked the pending set merely coalesces, so no write of a worker
ever waits for SQLite, and the same flush is tried again until it succeeds.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import structlog
import tenacity

from projections.board.board import Board
from projections.changed_plans import ChangedPlans
from projections.fold_waiters import FoldWaiters
from projections.listeners import Listeners, OnListenerFailure
from projections.log_identity import Witness
from projections.past import Past
from projections.preparation import Preparation
from projections.read_models.database import Database
from projections.read_models.pending import Pending
from projections.read_models.sqlite_file import DatabaseUnavailable
from projections.recall import Recall
from streams.log import BadFact, Fact, Log, LogUnavailable
from streams.plan.fold import forgets
from streams.plan.state import Plan
from streams.steps import in_turns

SLICE = 64  # facts folded before the loop is given back
TAIL_PATIENCE_S = 0.05  # how long `catch_up` waits for the tail before it reads for itself
FLUSH_RETRY_S = 0.25
FLUSH_DELAY_S = 0.25
CATCH_UP_PAGE = 256
LIVE_FACTS, PAST_FACTS = 1_024, 8_192  # folded until rows are made: some milliseconds of the loop
PAST_ROOM = 0.2  # of the limits: a fold of the past is faster than SQLite

log = structlog.get_logger("holdfast.projector")


class PendingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows, and how many bytes of them, may wait for SQLite.

    Beyond them new plans are refused; beyond twice as much the fold waits, too. A rebuild, which
    folds faster than SQLite writes, waits at a fifth.
    """

    rows: int = 500_000
    bytes: int = 128 * 1024 * 1024


DEFAULT_LIMITS = PendingLimits()
# Hears what is wrong with the database when a flush fails, and None when it is well again.
OnFlushTrouble = Callable[[str | None], None]


class Projector:
    """Drives the board and the read models; see `run` and `flush_forever` for its two loops.

    ``listeners`` are called for each fact once it is folded, and for each batch once its changes
    are pending.
    """

    def __init__(  # noqa: PLR0913 - what it connects, and where it goes on
        self,
        source: Log,
        board: Board,
        database: Database,
        *,
        epoch: str,
        now: Callable[[], float],
        observe_times: Callable[[Sequence[float]], None],
        on_listener_failure: OnListenerFailure | None = None,
        limits: PendingLimits = DEFAULT_LIMITS,
        witness: Witness | None = None,
        news_after: int = 0,
    ) -> None:
        """With a board that places nothing yet all facts are of the past, until `arrive`.

        Of these, listeners hear those above ``news_after``.
        """
        self.source = source
        self.board = board
        self.database = database
        self.listeners = Listeners(on_listener_failure, source.wrote)
        self.on_flush_trouble: list[OnFlushTrouble] = []
        self.flush_error: str | None = None
        self._limits = limits
        self._now = now
        self._observe_times = observe_times
        self.recall = Recall(source, board)
        self.preparation = Preparation(board, self.recall)
        self._past = Past(board, self.preparation, self.listeners, observe_times, news_after)
        self._pending = Pending(board.sequence, epoch, witness)
        self._behind_since: float | None = None
        self._changed = ChangedPlans()
        self._under_way: set[asyncio.Task[None]] = set()
        self._folding = asyncio.Lock()  # both the tail and `catch_up` bring facts
        self._dirty = asyncio.Event()
        self._room = asyncio.Event()
        self._wanted = asyncio.Event()
        self._waiting = FoldWaiters()
        self._waiting_flush: list[tuple[int, asyncio.Future[None]]] = []

    # -- following --------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the log from the board's sequence, for ever. Raises LogReset."""
        async for batch in self.source.follow(self.board.sequence):
            await self.step(batch)

    async def step(self, batch: Sequence[Fact | BadFact]) -> None:
        """Fold one batch, in slices short enough that nothing else on the loop waits long.

        Facts at or below the board's sequence are folded already and left out.
        """
        if not self.board.is_placing:
            await self._step_of_the_past(batch)
            return
        for start in range(0, len(batch), SLICE):
            await self.until_pending_below(2)
            async with self._folding:
                await self._fold(self._news_in(batch[start : start + SLICE]))
            if self._changed.is_above(LIVE_FACTS):
                await self._to_the_end(self._make_rows())
            if len(batch) > SLICE:
                await asyncio.sleep(0)

    def _news_in(self, facts: Sequence[Fact | BadFact]) -> Sequence[Fact | BadFact]:
        reached = self.board.sequence
        if facts and facts[0].sequence <= reached:
            return [fact for fact in facts if fact.sequence > reached]
        return facts

    async def _fold(self, facts: Sequence[Fact | BadFact]) -> None:
        board, preparation, listeners = self.board, self.preparation, self.listeners
        self._observe_times([fact.at for fact in facts])
        now = self._now()
        for fact in facts:
            if preparation.is_needed(fact):
                # Who waits for a fact before this one need not wait for this one's preparation.
                self._waiting.reached(board.sequence, board.ignored)
                await preparation.make(fact)
                now = self._now()
                ignored = await in_turns(board.applying(fact, now))
            else:
                ignored = board.apply(fact, now)
            while board.places.place_some(now):
                await asyncio.sleep(0)
                now = self._now()
            listeners.fact(fact, ignored)
        self._note(facts)
        self.listeners.batch(facts, board.sequence)

    def _note(self, facts: Sequence[Fact | BadFact]) -> None:
        """Have written what ``facts`` have changed on the board, and tell who waits for them."""
        board = self.board
        self._changed.note(facts, board.drain())
        self._pending.forget(board.drain_forgotten())
        if self._behind_since is None:
            self._behind_since = self._now()
        self._dirty.set()
        self._waiting.reached(board.sequence, board.ignored)

    async def _make_rows(self) -> None:
        """Make the rows of all that has changed on the board; no fact is folded meanwhile."""
        async with self._folding:
            plans, witness = self._changed.take()
            await self._pending.add_all(plans)
            self._pending.advance(self.board.sequence, witness)

    async def _to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Await ``work``, which goes on to its end even if the caller is cancelled."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)

    # -- the past -----------------------------------------------------------------------------

    async def _step_of_the_past(self, batch: Sequence[Fact | BadFact]) -> None:
        async with self._folding:
            news = self._news_in(batch)
            await self._past.fold(news)
            self._note(news)
        if self._changed.is_above(PAST_FACTS):
            await self._to_the_end(self._make_rows())
            await self.until_pending_below(PAST_ROOM)

    async def arrive(self) -> None:
        """All that stood in the log at the start is folded: place its tasks, and tell listeners."""
        async with self._folding:
            await in_turns(self.board.place_everything(self._now()))

    async def folded(self, sequence: int) -> str | None:
        """Wait until ``sequence`` is folded; answers why that fact was ignored, or None.

        Raises LogUnavailable after a while: the log stopped delivering.
        """
        if self.board.sequence >= sequence:
            return self.board.ignored.get(sequence)
        try:
            return await self._waiting.until_folded(sequence)
        except TimeoutError:
            reason = self.too_far_behind or "the log does not deliver"
            raise LogUnavailable(f"{reason}: waiting for sequence {sequence}") from None

    async def catch_up(self) -> None:
        """Return once everything is folded that is in the log now. Raises LogUnavailable."""
        head = (await self.source.state()).head
        with suppress(TimeoutError):
            async with asyncio.timeout(TAIL_PATIENCE_S):
                await self.folded(head)
        # When the tail is late, what is missing is read; the tail may bring it again.
        while self.board.sequence < head:
            rest = await self.source.scan(self.board.sequence, CATCH_UP_PAGE)
            if not rest:
                return  # the last messages were short-lived and have expired
            await self._to_the_end(self.step(rest))  # a fold is never left half done

    def reach(self, sequence: int) -> None:
        """Count what lies between the last fact and ``sequence`` as folded: expired messages."""
        self.board.sequence = max(self.board.sequence, sequence)

    # -- plans that are not in memory -------------------------------------------------------

    async def load(self, plan_id: str) -> Plan | None:
        """The plan, from memory or folded from the log; None when the log has none.

        Raises LogUnavailable.
        """
        plan = self.board.knows(plan_id)
        if plan is not None:
            return plan
        first = await self.source.first_of(plan_id)
        if forgets(first):  # another plan of this id may have been submitted since
            first = await self.source.last_of(plan_id)
        if first is None or forgets(first):
            return None
        # Every plan that the board has seen begin and does not hold is finished; one that it has
        # not seen yet will be there as soon as the fold reaches it.
        await self.folded(first.sequence)
        await self.recall.on_request(plan_id)
        return self.board.knows(plan_id)

    # -- read models ------------------------------------------------------------------------

    @property
    def flushed_sequence(self) -> int:
        """Up to where facts are in the read models."""
        return self._pending.flushed

    @property
    def witness(self) -> Witness | None:
        """The newest fact in the read models that stays in the log."""
        return self._pending.flushed_witness

    @property
    def lag_s(self) -> float:
        """How long ago the oldest fact that SQLite has not got was folded."""
        return 0.0 if self._behind_since is None else self._now() - self._behind_since

    @property
    def too_far_behind(self) -> str | None:
        """Why no new plan is taken: too much waits for SQLite; None when it does not."""
        if not self._waits_above(1):
            return None
        return f"{len(self._pending)} rows wait for the database ({self.flush_error or 'slow'})"

    def _waits_above(self, factor: float) -> bool:
        limits, pending, more = self._limits, self._pending, self._changed
        return (
            len(pending) + more.facts > limits.rows * factor
            or pending.size_bytes + more.bytes > limits.bytes * factor
        )

    async def until_pending_below(self, factor: float) -> None:
        """Wait while more is pending than ``factor`` times the limits."""
        while self._waits_above(factor):
            self._room.clear()
            self._wanted.set()
            await self._room.wait()

    async def flush_forever(self) -> None:
        """Write what is pending, as one transaction after the other.

        A flush waits a moment for more to change, unless a reader waits for it: under load a task's
        claim, start and end then cost one row and not three.
        """
        while True:
            await self._dirty.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_DELAY_S):
                    await self._wanted.wait()
            self._wanted.clear()
            await self.flush()
            if self._waiting_flush:
                self._wanted.set()

    async def flush(self) -> None:
        """Write everything that is pending now; tries again until the database takes it."""
        self._dirty.clear()
        await self._to_the_end(self._make_rows())
        sequence = self.flushed_sequence
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(DatabaseUnavailable),
            wait=tenacity.wait_fixed(FLUSH_RETRY_S),
            before_sleep=self._flush_failed,
        ):
            with attempt:
                sequence = await self._pending.flush(self.database)
        if self.flush_error is not None:
            log.info("database_recovered", sequence=sequence)
            self._tell_flush_trouble(None)
        self.flush_error = None
        self._behind_since = self._now() if self._dirty.is_set() else None
        self._room.set()
        arrived = [waiter for waiter in self._waiting_flush if waiter[0] <= sequence]
        self._waiting_flush = [waiter for waiter in self._waiting_flush if waiter[0] > sequence]
        for _, future in arrived:
            if not future.done():
                future.set_result(None)

    def _flush_failed(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if self.flush_error is None:
            log.error("database_error", error=str(error), pending_rows=len(self._pending))
            self._tell_flush_trouble(str(error))
        self.flush_error = str(error)

    def _tell_flush_trouble(self, error: str | None) -> None:
        for hear in self.on_flush_trouble:
            hear(error)

    async def flushed(self, sequence: int, wait_s: float) -> bool:
        """Wait for the read models to reach ``sequence``; False when ``wait_s`` was too short."""
        if self.flushed_sequence >= sequence:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting_flush.append((sequence, future))
        self._wanted.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await future
        if not future.done():
            future.cancel()
        self._waiting_flush = [waiter for waiter in self._waiting_flush if waiter[1] is not future]
        return self.flushed_sequence >= sequence
