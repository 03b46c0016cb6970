"""Adds up the bytes of the unfinished plans; a bound on them refuses new plans."""

from streams.plan.state import Plan


class UnfinishedBytes:
    """The sum of `Plan.bytes` over the plans that were counted and not forgotten since."""

    def __init__(self) -> None:
        self.total = 0
        self._counted: dict[str, int] = {}

    def count(self, plan: Plan) -> None:
        """Count ``plan`` as it is now, in place of what was counted of it before."""
        self.total += plan.bytes - self._counted.get(plan.plan_id, 0)
        self._counted[plan.plan_id] = plan.bytes

    def forget(self, plan: Plan) -> None:
        """Count ``plan``, which is finished, no more."""
        self.total -= self._counted.pop(plan.plan_id, 0)
