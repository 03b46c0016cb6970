"""What the fold has changed and no rows have been made of yet."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from projections.log_identity import Witness, witness_in
from streams.log import BadFact, Fact
from streams.plan.events import Checkpointed, Completed, Event, Failed, Submitted
from streams.plan.sizes import submitted_bytes
from streams.plan.state import Plan

MOST_BYTES = 16 * 1024 * 1024


class ChangedPlans:
    """The plans that have changed, and by how much: in facts, and in bytes.

    Bytes are those of values that came, and all of plans that have ended: nothing else may hold
    such a plan any more.
    """

    def __init__(self) -> None:
        self.facts = self.bytes = 0
        self._witness: Witness | None = None
        # By identity: a plan that has left memory meanwhile may have come back as another object.
        self._plans: dict[int, Plan] = {}

    def is_above(self, facts: int) -> bool:
        """Whether it is as much as ``facts``, or as many bytes as may wait."""
        return self.facts >= facts or self.bytes >= MOST_BYTES

    def note(self, facts: Sequence[Fact | BadFact], changed: Iterable[Plan]) -> None:
        """Take in ``facts`` that were folded, and the plans that they changed."""
        self.facts += len(facts)
        for fact in facts:
            if isinstance(fact, Fact) and (size_of := _VALUE_BYTES.get(type(fact.event))):
                self.bytes += size_of(fact.event)
        self._witness = witness_in(facts) or self._witness
        for plan in changed:
            self._plans[id(plan)] = plan
            if plan.finished_at is not None:
                self.bytes += plan.bytes

    def take(self) -> tuple[list[Plan], Witness | None]:
        """The plans in the order they changed first, and the newest fact that stays in the log."""
        taken = list(self._plans.values()), self._witness
        self.facts = self.bytes = 0
        self._witness, self._plans = None, {}
        return taken


def _completed_bytes(event: Completed) -> int:
    return len(event.output) + (len(event.verdict.feedback) if event.verdict else 0)


_VALUE_BYTES: dict[type[Event], Callable[[Any], int]] = {
    Submitted: submitted_bytes,
    Checkpointed: lambda event: len(event.value),
    Completed: _completed_bytes,
    Failed: lambda event: len(event.error_message),
}
"""How many bytes the values hold that a row of a fact's plan will have."""
