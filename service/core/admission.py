"""Whether a new plan may enter the log: its inputs, the read models, the bytes of unfinished plans.

The bytes are counted on the board (`projections.board.unfinished`), so all instances agree on them
but for what is being written. An instance adds what it writes itself: many submissions at a time
cannot pass the bound together.
"""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from projections.board.board import Board
from projections.projector import Projector
from service.core.answers import TooMuchUnfinished
from service.core.secrets_in_plans import secret_complaint
from service.settings.config import MemorySettings
from streams.log import LogUnavailable
from streams.plan.decisions import Invalid
from streams.plan.events import Submitted, TaskSpec
from streams.plan.sizes import is_large, submitted_bytes

T = TypeVar("T")
CheckInput = Callable[[TaskSpec], str | None]
"""What is wrong with the input of a task: task, field and reason; None: nothing."""


async def off_loop(look: Callable[[Submitted], T], plan: Submitted) -> T:
    """``look(plan)``, in a thread when the plan is large."""
    return await asyncio.to_thread(look, plan) if is_large(plan) else look(plan)


class Admission:
    """The judgement of one instance; a plan that is in the log already is never refused."""

    def __init__(
        self,
        projector: Projector,
        settings: MemorySettings,
        check_input: CheckInput,
    ) -> None:
        self._projector = projector
        self._most = settings.unfinished_bytes
        self.check_input = check_input
        self._entering = 0

    @property
    def _board(self) -> Board:
        return self._projector.board

    async def refusal(self, plan_id: str, plan: Submitted) -> Invalid | TooMuchUnfinished | None:
        """Why the plan may not enter, if it is new; None: it may, or it is there. LogUnavailable.

        No other plan enters between the answer None and the caller's next await.
        """
        if (behind := self._projector.too_far_behind) is not None:
            raise LogUnavailable(f"the read models are too far behind to take new plans: {behind}")
        if complaint := await off_loop(secret_complaint, plan):
            return Invalid(complaint)
        wrong = await off_loop(self._input_complaint, plan)
        refused = Invalid(wrong) if wrong else self._over_the_bound(plan)
        if refused is None or await self._projector.load(plan_id) is not None:
            return None
        return refused

    @contextmanager
    def entering(self, plan: Submitted) -> Generator[None]:
        """Count the plan while it is being written; the board counts it from then on."""
        size = submitted_bytes(plan)
        self._entering += size
        try:
            yield
        finally:
            self._entering -= size

    def _input_complaint(self, plan: Submitted) -> str | None:
        """Which task's input does not fit its kind."""
        return next(filter(None, map(self.check_input, plan.tasks)), None)

    def _over_the_bound(self, plan: Submitted) -> TooMuchUnfinished | None:
        size, held = submitted_bytes(plan), self._board.unfinished.total + self._entering
        if held + size <= self._most:
            return None
        return TooMuchUnfinished(
            f"unfinished plans take {held:,} bytes, this one {size:,}, and at most {self._most:,} "
            "are allowed (memory.unfinished_bytes); submit again when plans have ended"
        )
