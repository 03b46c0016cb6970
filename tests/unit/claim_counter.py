"""An instance with a claim queue, for tests that ask it as workers do."""

import asyncio
from collections.abc import Coroutine

from service.core.answers import Claim, ClaimRequest
from service.core.claim_queue import ClaimQueue
from service.core.standstill import SILENCE_LIMITS, SilenceLimits
from tests.memory_log import MemoryLog
from tests.unit.claim_story import Counted, Instance, LogTime


class Counter:
    """An instance with a claim queue."""

    def __init__(
        self,
        clock: LogTime | None = None,
        log: MemoryLog | None = None,
        silence: SilenceLimits = SILENCE_LIMITS,
    ) -> None:
        self.clock = clock or LogTime()
        self.log = log or MemoryLog(self.clock)
        self.instance = Instance(self.log, self.clock)
        metrics = self.instance.metrics
        assert isinstance(metrics, Counted)
        self.metrics = metrics
        self.claim_queue = ClaimQueue(self.instance, poll_interval_s=3_600, silence=silence)

    async def ask(self, owner: str = "w", **wish: object) -> list[Claim]:
        request = ClaimRequest(owner=owner, **wish)  # type: ignore[arg-type]
        return await self.claim_queue.claim(request, self.instance.origin)

    async def waiting(self, *asking: Coroutine[None, None, list[Claim]]) -> list[asyncio.Task]:
        """Requests that have found nothing and wait now."""
        tasks = [asyncio.create_task(each) for each in asking]
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(each.done() for each in tasks)
        return tasks

    def seen(self, name: str) -> int:
        return self.metrics.seen[f"agent.task.claim.{name}"]

    @property
    def free(self) -> int:
        """How many tasks could be picked now: nothing reserved is among them."""
        picks = self.instance.board.places.pick(1_000, None, self.instance.now())
        for pick in picks:
            self.instance.board.places.give_back(pick.seat, self.instance.now())
        return len(picks)
