"""Brings plans that are not in memory back onto the board, folded from the log."""

from collections import Counter

import tenacity

from projections.board.board import Board
from streams.log import BadFact, Fact, Log, LogUnavailable
from streams.plan.events import Submitted
from streams.plan.fold import fold_plan, forgets
from streams.plan.state import Plan
from streams.subjects import split_subject

RETRY_S = 0.5


class Recall:
    """Recalls finished plans for one board, whose fold it must not run ahead of."""

    def __init__(self, source: Log, board: Board) -> None:
        self._source = source
        self._board = board
        self.asked: Counter[str] = Counter()
        """How often a plan is being recalled on request."""
        self._newest: dict[str, int] = {}  # the newest fact about each of these since it began

    async def before(self, fact: Fact | BadFact) -> None:
        """Bring the finished plan that ``fact`` is about back before the fact is folded.

        Waits for the log as long as it does not answer.
        """
        if isinstance(fact, BadFact):
            plan_id, _ = split_subject(fact.subject) or (None, None)
        elif isinstance(fact.event, Submitted):
            return
        else:
            plan_id = fact.plan_id
        if plan_id is None:
            return
        if plan_id in self.asked:
            self._newest[plan_id] = fact.sequence
        if forgets(fact) or self._board.knows(plan_id) is not None:
            return
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(LogUnavailable),
            wait=tenacity.wait_fixed(RETRY_S),
        ):
            with attempt:
                self._adopt(await self._read(plan_id, fact.sequence - 1))

    async def on_request(self, plan_id: str) -> None:
        """Keep the plan at hand as it is where the board is, if the log has it.

        Raises LogUnavailable. The board goes on meanwhile: it may fold facts about the plan, and
        have released it again, before an older state has been read; then that is read anew.
        """
        self.asked[plan_id] += 1
        try:
            while self._board.knows(plan_id) is None:
                sequence = self._board.sequence
                plan = await self._read(plan_id, sequence)
                if self._newest.get(plan_id, 0) <= sequence:
                    self._adopt(plan)
                    return
        finally:
            self.asked[plan_id] -= 1
            if not self.asked[plan_id]:
                del self.asked[plan_id]
                self._newest.pop(plan_id, None)

    async def _read(self, plan_id: str, sequence: int) -> Plan | None:
        """The plan as the log has it up to ``sequence``. Raises LogUnavailable."""
        first = await self._source.first_of(plan_id)
        if first is None or first.sequence > sequence:
            return None
        later = await self._source.read(plan_id, after=first.sequence, up_to=sequence)
        return fold_plan([first, *later])

    def _adopt(self, plan: Plan | None) -> None:
        if plan is not None and self._board.knows(plan.plan_id) is None:
            plan.drain()
            self._board.adopt(plan)
