"""What some facts need before they are folded: their plan in memory, or long work off the loop."""

import asyncio

from projections.board.board import Board
from projections.board.places import WIDE
from projections.recall import Recall
from streams.log import BadFact, Fact
from streams.plan.events import Completed, Submitted
from streams.plan.fold import begin_plan
from streams.plan.outputs import digest_of, takes_long


class Preparation:
    """Tells facts that can be folded at once from others, and prepares the board for these."""

    def __init__(self, board: Board, recall: Recall) -> None:
        self._board = board
        self._recall = recall

    def is_needed(self, fact: Fact | BadFact) -> bool:
        """Whether to `make` it, and to fold the fact in steps: it may change much."""
        if isinstance(fact, BadFact):
            return True
        event = fact.event
        if type(event) is Submitted:
            return len(event.tasks) > WIDE
        plan = self._board.plans.get(fact.plan_id)
        if plan is None or len(plan.tasks) > WIDE or fact.plan_id in self._recall.asked:
            return True
        return type(event) is Completed and takes_long(event.output)

    async def make(self, fact: Fact | BadFact) -> None:
        """Bring the plan of the next fact into memory, and do off the loop what takes long."""
        await self._recall.before(fact)
        if not isinstance(fact, Fact):
            return
        event = fact.event
        if isinstance(event, Submitted):
            if len(event.tasks) > WIDE and self._board.knows(fact.plan_id) is None:
                self._board.prepare(fact.sequence, await asyncio.to_thread(begin_plan, fact))
        elif isinstance(event, Completed) and takes_long(event.output):
            await asyncio.to_thread(digest_of, event)
