"""Folds what stood in the log before this process serves, as fast as it can.

No task is claimed meanwhile, and no request waits for a single fact. So the board places no tasks,
and the loop is given back seldom.
"""

import asyncio
from collections.abc import Callable, Sequence

from projections.board.board import Board
from projections.listeners import FoldedFact, Listeners
from projections.preparation import Preparation
from streams.steps import in_turns

SLICE = 512  # facts folded before the loop is given back


class Past:
    """Folds facts into ``board``; listeners hear of those above ``news_after``."""

    def __init__(
        self,
        board: Board,
        preparation: Preparation,
        listeners: Listeners,
        observe_times: Callable[[Sequence[float]], None],
        news_after: int,
    ) -> None:
        self._board = board
        self._preparation = preparation
        self._listeners = listeners
        self._observe_times = observe_times
        self._news_after = news_after

    async def fold(self, facts: Sequence[FoldedFact]) -> None:
        """Fold a batch."""
        for start in range(0, len(facts), SLICE):
            await self._fold(facts[start : start + SLICE])
            await asyncio.sleep(0)
        news = [fact for fact in facts if fact.sequence > self._news_after]
        self._listeners.batch(news, self._board.sequence)

    async def _fold(self, facts: Sequence[FoldedFact]) -> None:
        board, preparation = self._board, self._preparation
        self._observe_times([fact.at for fact in facts])
        for fact in facts:
            if preparation.is_needed(fact):
                await preparation.make(fact)
                ignored = await in_turns(board.applying(fact, fact.at))
            else:
                ignored = board.apply(fact, fact.at)
            if fact.sequence > self._news_after:
                self._listeners.fact(fact, ignored)
