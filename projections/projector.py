"""Follows the log: folds each fact into the board, and keeps the read models up behind it.

One fold per process. The board is always ahead; the rows that a batch changed are merged into a
pending set, which one transaction writes together with the checkpoint. While SQLite is slow or
locked the pending set merely coalesces, so no write of a worker ever waits for SQLite, and the
same flush is tried again until it succeeds.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
import structlog
import tenacity

from projections.board.board import Board
from projections.listeners import Listeners, OnListenerFailure
from projections.log_identity import Witness, witness_in
from projections.past import Past
from projections.read_models.database import Database, DatabaseUnavailable
from projections.read_models.restore import Pending
from projections.recall import Recall
from streams.log import BadFact, Fact, Log, LogUnavailable
from streams.plan.events import Completed
from streams.plan.fold import begin_plan, forgets
from streams.plan.outputs import digest_of, takes_long
from streams.plan.state import Plan
from streams.steps import in_turns

SLICE = 64  # facts folded before the loop is given back
FOLD_WAIT_S = 5.0
OVERDUE_LOOK_S = 0.5  # how often writers that wait for the fold are looked through
TAIL_PATIENCE_S = 0.05  # how long `catch_up` waits for the tail before it reads for itself
FLUSH_RETRY_S = 0.25
FLUSH_DELAY_S = 0.1
CATCH_UP_PAGE = 256
PAST_ROOM = 0.1  # of the limits: a fold of the past is faster than SQLite

log = structlog.get_logger("holdfast.projector")

T = TypeVar("T")


class PendingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows, and how many bytes of them, may wait for SQLite.

    Beyond them new plans are refused; beyond twice as much the fold waits, too. A rebuild, which
    folds faster than SQLite writes, waits at a tenth.
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
        observe_time: Callable[[float], None],
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
        self.listeners = Listeners(on_listener_failure)
        self.on_flush_trouble: list[OnFlushTrouble] = []
        self.flush_error: str | None = None
        self._limits = limits
        self._now = now
        self._observe_time = observe_time
        self.recall = Recall(source, board)
        self._past = Past(board, self.recall, self.listeners, observe_time, news_after)
        self._pending = Pending(board.sequence, epoch, witness)
        self._behind_since: float | None = None
        self._catching_up: set[asyncio.Task[None]] = set()
        self._folding = asyncio.Lock()  # both the tail and `catch_up` bring facts
        self._dirty = asyncio.Event()
        self._room = asyncio.Event()
        self._wanted = asyncio.Event()
        self._waiting_fold: dict[int, list[asyncio.Future[str | None]]] = {}
        self._overdue_at: dict[asyncio.Future[str | None], float] = {}  # by the loop's clock
        self._overdue_timer: asyncio.TimerHandle | None = None
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
        async with self._folding:
            if batch and batch[0].sequence <= self.board.sequence:
                batch = [fact for fact in batch if fact.sequence > self.board.sequence]
            if not self.board.is_placing:
                await self._fold_past(batch)
                return
            for start in range(0, len(batch), SLICE):
                await self.until_pending_below(2)
                await self._fold(batch[start : start + SLICE])
                if len(batch) > SLICE:
                    await asyncio.sleep(0)

    async def _fold(self, facts: Sequence[Fact | BadFact]) -> None:
        board, waiting = self.board, self._waiting_fold
        for fact in facts:
            self._observe_time(fact.at)
            if not self.recall.is_at_hand(fact):
                await self.recall.before(fact)
            if board.is_wide(fact):
                board.prepare(fact.sequence, await asyncio.to_thread(begin_plan, fact))
            event = fact.event if isinstance(fact, Fact) else None
            if isinstance(event, Completed) and takes_long(event.output):
                await asyncio.to_thread(digest_of, event)
            ignored = await in_turns(board.applying(fact, max(self._now(), fact.at)))
            while board.place_some(max(self._now(), fact.at)):  # noqa: ASYNC110 - others go on
                await asyncio.sleep(0)
            self.listeners.fact(fact, ignored)
            if fact.sequence in waiting:
                _resolve(waiting.pop(fact.sequence), ignored)
        await self._make_rows(witness_in(facts))
        self.listeners.batch(facts, board.sequence)

    async def _make_rows(self, witness: Witness | None) -> None:
        """Have the rows written of what changed on the board, and tell the waiting writers."""
        board = self.board
        await self._pending.add_all(board.drain())
        self._pending.forget(board.drain_forgotten())
        self._pending.advance(board.sequence, witness)
        if self._behind_since is None:
            self._behind_since = self._now()
        self._dirty.set()
        self._tell_who_waits()

    def _tell_who_waits(self) -> None:
        board, waiting = self.board, self._waiting_fold
        for passed in [sequence for sequence in waiting if sequence <= board.sequence]:
            _resolve(waiting.pop(passed), board.ignored.get(passed))

    # -- the past -----------------------------------------------------------------------------

    async def _fold_past(self, batch: Sequence[Fact | BadFact]) -> None:
        await self._past.fold(batch)
        self._tell_who_waits()
        if self._past.is_much:
            await self._rows_of_the_past()

    async def _rows_of_the_past(self) -> None:
        await self._make_rows(self._past.witness)
        self._past.rows_are_made()
        await self.until_pending_below(PAST_ROOM)

    async def arrive(self) -> None:
        """All that stood in the log at the start is folded: place its tasks, and tell listeners."""
        async with self._folding:
            await self._rows_of_the_past()
            await in_turns(self.board.place_everything(self._now()))

    async def folded(self, sequence: int, wait_s: float = FOLD_WAIT_S) -> str | None:
        """Wait until ``sequence`` is folded; answers why that fact was ignored, or None.

        Raises LogUnavailable after ``wait_s``: the log stopped delivering.
        """
        if self.board.sequence >= sequence:
            return self.board.ignored.get(sequence)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str | None] = loop.create_future()
        self._waiting_fold.setdefault(sequence, []).append(future)
        try:
            if wait_s == FOLD_WAIT_S:
                self._overdue_at[future] = loop.time() + wait_s
                self._watch_overdue()
                return await future
            async with asyncio.timeout(wait_s):
                return await future
        except TimeoutError:
            reason = self.too_far_behind or "the log does not deliver"
            raise LogUnavailable(f"{reason}: waiting for sequence {sequence}") from None

    def _watch_overdue(self) -> None:
        """One timer for all writers that wait for the fold: one for each would cost more."""
        if self._overdue_timer is None:
            loop = asyncio.get_running_loop()
            self._overdue_timer = loop.call_later(OVERDUE_LOOK_S, self._fail_overdue)

    def _fail_overdue(self) -> None:
        self._overdue_timer = None
        now = asyncio.get_running_loop().time()
        for future, at in list(self._overdue_at.items()):
            if not future.done() and at <= now:
                future.set_exception(TimeoutError())
            if future.done():
                del self._overdue_at[future]
        if self._overdue_at:
            self._watch_overdue()

    async def catch_up(self) -> None:
        """Return once everything is folded that is in the log now. Raises LogUnavailable."""
        head = (await self.source.state()).head
        with suppress(LogUnavailable):
            await self.folded(head, TAIL_PATIENCE_S)
        # When the tail is late, what is missing is read; the tail may bring it again.
        while self.board.sequence < head:
            rest = await self.source.scan(self.board.sequence, CATCH_UP_PAGE)
            if not rest:
                return  # the last messages were short-lived and have expired
            # A fold is never left half done, even if its caller is cancelled.
            folding = asyncio.create_task(self.step(rest), name="catch up")
            self._catching_up.add(folding)
            folding.add_done_callback(self._catching_up.discard)
            await asyncio.shield(folding)

    def reach(self, sequence: int) -> None:
        """Count what lies between the last fact and ``sequence`` as folded: expired messages."""
        self.board.sequence = max(self.board.sequence, sequence)
        self._pending.advance(self.board.sequence)

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
        limits, pending = self._limits, self._pending
        return len(pending) > limits.rows * factor or pending.size_bytes > limits.bytes * factor

    async def until_pending_below(self, factor: float) -> None:
        """Wait while more is pending than ``factor`` times the limits."""
        while self._waits_above(factor):
            self._room.clear()
            self._wanted.set()
            await self._room.wait()

    async def flush_forever(self) -> None:
        """Write what is pending, as one transaction after the other.

        A flush waits a moment for rows to change again before they are written, unless a reader
        waits for it: under load a task's claim, start and end then cost one row and not three.
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
        _resolve([future for _, future in arrived], None)

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


def _resolve(futures: Sequence[asyncio.Future[T]], value: T) -> None:
    for future in futures:
        if not future.done():
            future.set_result(value)
