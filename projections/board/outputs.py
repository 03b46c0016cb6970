"""Outputs of ended tasks in memory: those that an unfinished task needs, up to so many bytes.

What is not here is in the log and in the read models; a claim that needs it reads it back
(`service.core.claim_inputs`).
"""

from streams.plan.lifecycle import ENDED
from streams.plan.state import Plan, Task

MAX_BYTES = 64 * 1024 * 1024


class Outputs:
    """Decides which outputs stay in `Task.held`; the oldest leave when there are too many bytes."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._held: dict[int, tuple[Task, int]] = {}

    def settle(self, plan: Plan) -> None:
        """Look at what the last fact changed in ``plan``."""
        for task in plan.latest:
            self._look_at(task)
            if task.status in ENDED:
                for dependency in task.spec.depends_on:
                    self._look_at(plan.tasks[dependency])

    def forget(self, plan: Plan) -> None:
        """Keep no output of a plan that has ended."""
        for task in plan.tasks.values():
            self._drop(task)

    def _look_at(self, task: Task) -> None:
        if task.held is None or task.status != "COMPLETED" or not task.wanted:
            self._drop(task)
        elif id(task) not in self._held:
            self._held[id(task)] = task, task.output_bytes
            self.bytes += task.output_bytes
            while self.bytes > self._max_bytes:
                self._drop(next(iter(self._held.values()))[0])

    def _drop(self, task: Task) -> None:
        task.held = None
        _, size = self._held.pop(id(task), (task, 0))
        self.bytes -= size
