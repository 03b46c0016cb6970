"""Plans that have just finished, kept in memory: late reports are the usual reason to need one.

They are bounded in number of tasks and in bytes; the one that finished first leaves first.
"""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from streams.plan.state import Plan


class RecentLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of finished plans stays in memory."""

    tasks: int = 20_000
    bytes: int = 32 * 1024 * 1024


class RecentPlans:
    """Finished plans by id. The last one stays whatever its size."""

    def __init__(self, limits: RecentLimits) -> None:
        self.tasks = self.bytes = 0
        self._limits = limits
        self._plans: OrderedDict[str, tuple[Plan, int]] = OrderedDict()

    def __len__(self) -> int:
        """How many plans are kept."""
        return len(self._plans)

    def __iter__(self) -> Iterator[Plan]:
        """The plans, the one that finished first at the front."""
        return (plan for plan, _ in self._plans.values())

    def __contains__(self, plan_id: str) -> bool:
        """Whether the plan is kept."""
        return plan_id in self._plans

    def get(self, plan_id: str) -> Plan | None:
        """The plan, if it is kept."""
        plan, _ = self._plans.get(plan_id, (None, 0))
        return plan

    def add(self, plan: Plan) -> None:
        """Keep ``plan``; older ones leave."""
        self.pop(plan.plan_id)
        self._plans[plan.plan_id] = plan, plan.bytes
        self.tasks += len(plan.tasks)
        self.bytes += plan.bytes
        while len(self._plans) > 1 and (
            self.tasks > self._limits.tasks or self.bytes > self._limits.bytes
        ):
            self.pop(next(iter(self._plans)))

    def pop(self, plan_id: str) -> Plan | None:
        """Take the plan out."""
        plan, size = self._plans.pop(plan_id, (None, 0))
        if plan is not None:
            self.tasks -= len(plan.tasks)
            self.bytes -= size
        return plan
