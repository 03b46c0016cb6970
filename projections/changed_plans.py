"""What the fold has changed and no rows have been made of yet."""

from collections.abc import Iterable, Sequence

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
        events = [fact.event for fact in facts if isinstance(fact, Fact)]
        self.bytes += sum([_value_bytes(event) for event in events if type(event) in _WITH_VALUES])
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


_WITH_VALUES = {Submitted, Checkpointed, Completed, Failed}


def _value_bytes(event: Event) -> int:
    match event:
        case Completed():
            return len(event.output) + (len(event.verdict.feedback) if event.verdict else 0)
        case Failed():
            return len(event.error_message)
        case Checkpointed():
            return len(event.value)
        case Submitted():
            return submitted_bytes(event)
        case _:
            return 0
