"""Which running attempts have outlived their time-out, without a look at all that run.

The board tells of each attempt once, when it begins; a start that is reported later is seen when
the attempt may be overdue.
"""

from projections.board.leases import Leases
from projections.board.timers import Timers
from streams.plan.state import Plan, Task

Running = tuple[Plan, Task]


class TimeOuts:
    """The attempts whose time is bounded; ``leases`` measures how long each has surely run."""

    def __init__(self, leases: Leases | None) -> None:
        self._leases = leases
        self._timers: Timers[Running] = Timers()

    def watch(self, plan: Plan, task: Task) -> None:
        """Look at the attempt that runs now when it may be overdue, if it ever is."""
        due = task.overdue_at
        if due is None:
            self._timers.cancel(id(task))
        else:
            self._timers.set(id(task), due, (plan, task))

    def forget(self, task: Task) -> None:
        """The task runs no more."""
        self._timers.cancel(id(task))

    def overdue(self, now: float) -> list[Running]:
        """Those that at log time ``now`` have run a lease longer than they may, at every call."""
        found: list[Running] = []
        for plan, task in list(self._timers.take(now)):
            if self._is_overdue(task, now):
                found.append((plan, task))
            self.watch(plan, task)
        return found

    def _is_overdue(self, task: Task, now: float) -> bool:
        due = task.overdue_at
        if due is None or due >= now:
            return False
        if self._leases is None:
            return True
        # A step of the log's clock makes no attempt longer.
        return self._leases.ran_s(task) > (task.timeout_s or 0.0) + task.lease_s
