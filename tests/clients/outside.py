"""A plan whose only task is worked on outside, so that a test decides when its events happen."""

from msgspec import Raw

from service.core.core import Core
from streams.plan.events import Claimed, Completed, Finished, Progress, Submitted, TaskSpec
from tests.integration.sse_world import write


class OutsidePlan:
    """``sequence`` is that of its last event in the log."""

    def __init__(self, core: Core, plan_id: str, submitted: int, claimed: int) -> None:
        self._core = core
        self._plan_id = plan_id
        self._submitted = submitted
        self._of_task = claimed
        self.sequence = claimed

    @classmethod
    async def begin(cls, core: Core, plan_id: str) -> "OutsidePlan":
        """Submit it and claim its task: two events."""
        spec = Submitted(tasks=(TaskSpec(id="a", kind="nobody does this"),))
        submitted = await write(core, plan_id, None, 0, spec)
        claim = Claimed(owner="w", attempt=1, lease_s=600)
        return cls(core, plan_id, submitted, await write(core, plan_id, "a", 0, claim))

    async def progress(self, count: int = 1) -> int:
        """``count`` more events of its task; answers the sequence of the last."""
        steps = [Progress(owner="w", attempt=1, data=Raw(b"%d" % n)) for n in range(count)]
        self._of_task = await write(self._core, self._plan_id, "a", self._of_task, *steps)
        self.sequence = self._of_task
        return self.sequence

    async def complete(self) -> int:
        """The last event of its task."""
        done = Completed(owner="w", attempt=1, output=Raw(b"{}"))
        self._of_task = await write(self._core, self._plan_id, "a", self._of_task, done)
        self.sequence = self._of_task
        return self.sequence

    async def finish(self) -> int:
        """End it."""
        done = Finished(status="COMPLETED")
        self.sequence = await write(self._core, self._plan_id, None, self._submitted, done)
        return self.sequence
