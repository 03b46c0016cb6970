"""Brings plans that are not in memory back onto the board, folded from the log."""

import tenacity

from projections.board.board import Board
from streams.log import BadFact, Fact, Log, LogUnavailable
from streams.plan.events import Submitted
from streams.plan.fold import fold_plan
from streams.subjects import split_subject

RETRY_S = 0.5


class Recall:
    """Recalls finished plans for one board, whose fold it must not run ahead of."""

    def __init__(self, source: Log, board: Board) -> None:
        self._source = source
        self._board = board

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
        if plan_id is None or self._board.knows(plan_id) is not None:
            return
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(LogUnavailable),
            wait=tenacity.wait_fixed(RETRY_S),
        ):
            with attempt:
                await self.up_to(plan_id, fact.sequence - 1)

    async def up_to(self, plan_id: str, sequence: int) -> None:
        """Fold the plan from the log up to ``sequence`` and keep it at hand, if the log has it.

        Raises LogUnavailable.
        """
        first = await self._source.first_of(plan_id)
        if first is None or first.sequence > sequence:
            return
        later = await self._source.read(plan_id, after=first.sequence, up_to=sequence)
        plan = fold_plan([first, *later])
        if plan is not None and self._board.knows(plan_id) is None:
            plan.drain()
            self._board.adopt(plan)
