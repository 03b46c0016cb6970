"""The claims that later ones have followed: their owners may still write, and are then audited."""

from collections import OrderedDict

from projections.board.board import Board
from streams.log import Fact
from streams.plan.events import Claimed
from streams.plan.state import Execution

MAX_EARLIER = 10_000


class EarlierClaims:
    """The executions of attempts that are over, the newest; listens to the fold of ``board``."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._executions: OrderedDict[tuple[str, str, int], Execution] = OrderedDict()

    def followed(self, fact: Fact) -> None:
        """Keep the claim that this one, of whichever instance, has followed."""
        event = fact.event
        if not isinstance(event, Claimed) or event.attempt == 1:
            return
        plan = self._board.knows(fact.plan_id)
        if plan is None or not plan.closed:
            return
        task_id, execution = plan.closed[-1]
        self._executions[fact.plan_id, task_id, execution.attempt] = execution
        if len(self._executions) > MAX_EARLIER:
            self._executions.popitem(last=False)

    def of(self, plan_id: str, task_id: str, attempt: int) -> Execution | None:
        """The execution of an attempt that a later one has followed, if it is remembered."""
        return self._executions.get((plan_id, task_id, attempt))
