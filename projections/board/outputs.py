"""Outputs that an unfinished task needs, and checkpoints, in memory: up to so many bytes.

What is not here is in the log and in the read models; a claim that needs it reads it back
(`service.core.claim_inputs`).
"""

from collections.abc import Generator
from typing import Protocol

from msgspec import Raw

from streams.plan.lifecycle import ENDED
from streams.plan.state import Plan, Task

MAX_BYTES = 64 * 1024 * 1024


class Holder(Protocol):
    """A task with its output, or a checkpoint with its value; ``held`` None: not in memory."""

    held: Raw | None


class Outputs:
    """Decides what stays in ``held``; the oldest leave when there are too many bytes."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._held: dict[int, tuple[Holder, int]] = {}

    def has_work(self, plan: Plan) -> bool:
        """Whether `settle` would change anything; mostly it would not, and this is quicker."""
        if self._held or plan.outdated:
            return True
        for task in plan.latest:  # noqa: SIM110 - a generator takes longer than this
            if task.held is not None or task.checkpoints:
                return True
        return False

    def settle(self, plan: Plan) -> Generator[None]:
        """Look at what the last fact changed in ``plan``, in short steps."""
        less_wanted: set[str] = set()
        for checkpoint in plan.outdated:
            self._drop(checkpoint)
        for task in plan.latest:
            self._look_at(task)
            if task.status in ENDED:
                less_wanted.update(task.spec.depends_on)
            yield
        for dependency in less_wanted:
            self._look_at(plan.tasks[dependency])
            yield

    def forget(self, plan: Plan) -> None:
        """Keep nothing of a plan that has ended."""
        for task in plan.tasks.values():
            if task.held is not None or id(task) in self._held:
                self._drop(task)
            for checkpoint in (task.checkpoints or {}).values():
                self._drop(checkpoint)

    def _look_at(self, task: Task) -> None:
        for checkpoint in (task.checkpoints or {}).values():
            if checkpoint.held is not None:
                self._hold(checkpoint, checkpoint.size)
        if task.held is None or task.status != "COMPLETED" or not task.wanted:
            self._drop(task)
        else:
            self._hold(task, task.output_bytes)

    def _hold(self, holder: Holder, size: int) -> None:
        if id(holder) in self._held:
            return
        self._held[id(holder)] = holder, size
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._held.values()))[0])

    def _drop(self, holder: Holder) -> None:
        holder.held = None
        _, size = self._held.pop(id(holder), (holder, 0))
        self.bytes -= size
