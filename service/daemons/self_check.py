"""Folds random plans anew from the log and compares them with the board and with SQLite's rows.

A comparison is exact however busy the plan is: the board's and the file's rows are taken each with
the sequence that they stand for, and the log is folded to just there. A plan of many facts is
folded over several ticks, so a tick's work is bounded. What differs is counted and logged; it does
not make the instance unready, because every instance may have folded the same way.
"""

import asyncio
import random
import time
from contextlib import suppress
from itertools import islice

import structlog

from projections.board.board import Board
from projections.integrity.differences import Difference, Pair
from projections.integrity.plan_rows import PlanFile, Seen, pairs_of, rows_of
from projections.read_models.sqlite_file import DatabaseUnavailable
from service.core.bridge import Bridge
from service.core.core import Core
from service.daemons.daemon import Daemon
from streams.log import BadFact, Fact, Log, LogUnavailable
from streams.plan.fold import begin_plan, fold_fact, forgets
from streams.plan.state import Plan

PERIOD_S = 5.0
BUDGET_S = 0.15  # of this thread's time per tick
PAGE = 250
SLICE = 64
ANSWER_S = 1.0
LARGEST_ON_BOARD = 1_000  # tasks: the rows of more would hold the API loop for too long
MAX_ASKED = 50  # messages of one plan that the log is asked for
MAX_LINES = 20

log = structlog.get_logger("holdfast.self_check")


class _PlanForgottenError(Exception):
    """The plan under examination was forgotten meanwhile; what was found before still counts."""


def _on_board(board: Board, plan_id: str) -> Seen | None:
    """A plan's rows with the sequence that they stand for; None while they stand for none."""
    plan = board.knows(plan_id)
    if plan is None or board.is_folding or len(plan.tasks) > LARGEST_ON_BOARD:
        return None
    return Seen(board.sequence, rows_of(plan, replaced=False))


class Examination:
    """One plan being folded from the log, as far as it has come."""

    def __init__(self, plan_id: str, file: PlanFile) -> None:
        self.plan_id = plan_id
        self.differences: list[tuple[str, int, Difference]] = []
        self.is_over = False
        self.is_lost = False  # the log has nothing of it, although it was never forgotten
        self._file = file
        self._plan: Plan | None = None
        self._read_to = 0
        self._ahead: list[Fact | BadFact] = []
        self._spent_at = 0.0

    async def go_on(self, bridge: Bridge) -> None:
        """Fold on, up to the budget; at the end compare. Raises LogUnavailable and the like."""
        self._spent_at = time.thread_time() + BUDGET_S
        while True:
            page, flushed = await self._page(bridge)
            if any(map(forgets, page)):
                self.is_over = True  # its facts may be removed at any moment
                return
            # Not beyond what SQLite has: its rows are to be met, and the board is ahead of them.
            due = [fact for fact in page if fact.sequence <= flushed]
            self._ahead = page[len(due) :]
            await self._fold(due)
            if self._plan is None:
                self.is_over = True  # not in SQLite yet, or a plan that the board ignores, too
                return
            # A short page is no end: the replica that answered it may lag.
            if self._ahead or not page:
                with suppress(_PlanForgottenError):
                    await self._compare(bridge, self._plan)
                self.is_over = True
                return
            if time.thread_time() > self._spent_at:
                return

    async def _page(self, bridge: Bridge) -> tuple[list[Fact | BadFact], int]:
        """The plan's next facts, and up to where SQLite had all facts before they were read."""
        after = self._read_to

        async def scan(core: Core) -> tuple[list[Fact | BadFact], int]:
            flushed, facts = core.projector.flushed_sequence, list[Fact | BadFact]()
            start = after
            if after == 0:
                first = await core.log.first_of(self.plan_id)
                if first is None:
                    self.is_lost = True
                    return [], flushed
                facts, start = [first], first.sequence
            return [*facts, *await core.log.scan(start, PAGE, self.plan_id)], flushed

        async with asyncio.timeout(ANSWER_S):
            page, flushed = await bridge.call(scan)
        self._read_to = page[-1].sequence if page else after
        return page, flushed

    async def _fold(self, facts: list[Fact | BadFact]) -> None:
        for start in range(0, len(facts), SLICE):
            for fact in facts[start : start + SLICE]:
                self._take(fact)
            await asyncio.sleep(0)

    def _take(self, fact: Fact | BadFact) -> None:
        if self._plan is None:
            begun = begin_plan(fact)
            self._plan = None if isinstance(begun, str) else begun
        else:
            fold_fact(self._plan, fact)
            self._plan.kept = []  # its tasks hold the newest

    async def _fold_to(self, bridge: Bridge, sequence: int) -> None:
        while True:
            due = [fact for fact in self._ahead if fact.sequence <= sequence]
            self._ahead = self._ahead[len(due) :]
            await self._fold(due)
            if self._ahead:
                return
            self._ahead, _ = await self._page(bridge)
            if any(map(forgets, self._ahead)):
                raise _PlanForgottenError
            if not self._ahead:
                return

    async def _compare(self, bridge: Bridge, plan: Plan) -> None:
        async def look(core: Core) -> Seen | None:
            return _on_board(core.board, self.plan_id)

        board = await bridge.call(look)
        await asyncio.sleep(0)
        file = self._file.read(plan.first_sequence)
        places = [("board", board)] if board is not None else []
        if file.sequence >= plan.first_sequence:
            places.append(("database", file))
        for place, seen in sorted(places, key=lambda each: each[1].sequence):
            await self._fold_to(bridge, seen.sequence)
            await asyncio.sleep(0)
            folded = rows_of(plan, replaced=place == "database")
            differing = [pair for pair in pairs_of(seen.rows, folded) if pair.live != pair.rebuilt]
            gone = await self._gone(bridge, differing)
            found = [each for pair in differing for each in pair.differences(gone.__contains__)]
            self.differences += [(place, seen.sequence, each) for each in found]

    async def _gone(self, bridge: Bridge, differing: list[Pair]) -> set[int]:
        """Which messages that only live rows know have left the log; all beyond a bound."""
        asked = {at for pair in differing if (at := pair.chatter_at) is not None}
        some = set(islice(asked, MAX_ASKED))

        async def look(core: Core) -> set[int]:
            return {at for at in some if not await is_there(core.log, at)}

        async with asyncio.timeout(ANSWER_S):
            return await bridge.call(look) | (asked - some) if asked else set()


async def is_there(source: Log, sequence: int) -> bool:
    """Whether a message stands at this sequence of the log. Raises LogUnavailable."""
    found = await source.scan(sequence - 1, 1)
    return bool(found) and found[0].sequence == sequence


class SelfCheck:
    """Examines one plan after the other: one on the board, then any, and so on."""

    def __init__(self, file: PlanFile) -> None:
        self._file = file
        self._current: Examination | None = None
        self._count = 0

    async def step(self, bridge: Bridge) -> None:
        """Go on with the plan under examination, or begin with another."""
        # Taken out while it is worked on: a tick that is left behind cannot share it.
        current, self._current = self._current, None
        try:
            current = current or await self._begin(bridge)
            if current is None:
                return
            await current.go_on(bridge)
        except (LogUnavailable, DatabaseUnavailable, TimeoutError) as error:
            # Their own checks report it; what cannot be read is not compared.
            log.info("self_check_postponed", error=str(error) or "no answer in time")
            return
        if current.is_over:
            await self._report(bridge, current)
        else:
            self._current = current

    async def _begin(self, bridge: Bridge) -> Examination | None:
        self._count += 1
        dice = random.random()  # noqa: S311 - a sample, no secret

        async def choose(core: Core) -> tuple[str | None, int]:
            plans = core.board.plans
            chosen = None
            if plans and self._count % 2:
                place = int(dice * len(plans))
                chosen = next(name for n, name in enumerate(plans) if n == place)
            return chosen, int(dice * core.projector.flushed_sequence)

        plan_id, sequence = await bridge.call(choose)
        plan_id = plan_id or self._file.one_from(sequence)
        return None if plan_id is None else Examination(plan_id, self._file)

    async def _report(self, bridge: Bridge, examined: Examination) -> None:
        for place, sequence, each in examined.differences[:MAX_LINES]:
            log.error(
                "projection_mismatch",
                plan_id=examined.plan_id,
                sequence=sequence,
                where=place,
                table=each.table,
                key=each.key,
                field=each.column,
                live=each.live,
                folded=each.rebuilt,
            )
        count = len(examined.differences)

        async def note(core: Core) -> None:
            if count:
                core.metrics.count("agent.projection.mismatch.total", count)
            if examined.is_lost:
                why = f"the log has no facts of plan '{examined.plan_id}', which was not forgotten"
                core.conditions.log_facts_missing(why)

        if count or examined.is_lost:
            await bridge.call(note)


def self_check(file: PlanFile) -> Daemon:
    """Examines a plan every few seconds."""
    return Daemon(name="self_check", period_s=PERIOD_S, step=SelfCheck(file).step, stuck_s=5.0)
