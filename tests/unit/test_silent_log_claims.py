"""Claims while the log does not answer: held back, then refused, and served when it speaks."""

import asyncio
import time

import pytest

from service.core.standstill import SilenceLimits
from streams.log import Appended, Conflict, Draft, LogUnavailable
from tests.memory_log import MemoryLog
from tests.unit.claim_counter import Counter
from tests.unit.claim_story import LogTime
from tests.unit.plan_story import task
from tests.waiting import eventually

LONG_S = 20.0


class SilentLog(MemoryLog):
    """A log whose answers to appends wait while it is silent, as one without quorum does."""

    def __init__(self, clock: LogTime) -> None:
        super().__init__(clock)
        self.speaks = asyncio.Event()
        self.speaks.set()
        self.asked = 0

    async def append(self, draft: Draft) -> Appended | Conflict:
        self.asked += 1
        await self.speaks.wait()
        return await super().append(draft)


@pytest.fixture
async def silent() -> tuple[Counter, SilentLog]:
    """Three tasks in a log that does not answer."""
    clock = LogTime()
    log = SilentLog(clock)
    counter = Counter(clock, log, SilenceLimits(held_back_s=0.2, refused_s=0.4))
    await counter.instance.submit("p", *(task(f"t{n}") for n in range(3)))
    log.asked = 0
    log.speaks.clear()
    return counter, log


async def test_no_claim_is_sent_after_one_that_the_log_has_not_answered_for_long(
    silent: tuple[Counter, SilentLog],
) -> None:
    counter, log = silent
    first = asyncio.create_task(counter.ask("w0"))
    standstill = counter.claim_queue.leases.standstill
    await eventually(lambda: standstill.left_s > 0)
    assert await asyncio.wait_for(counter.ask("w1"), LONG_S / 4) == [], "not yet an error"
    await eventually(lambda: standstill.silent_s > 0.4)
    with pytest.raises(LogUnavailable, match="has not answered a claim"):
        await asyncio.wait_for(counter.ask("w1"), LONG_S / 4)
    (waiting,) = await counter.waiting(counter.ask("w2", wait_s=LONG_S))
    assert counter.claim_queue.serve_waiting(all_kinds=True) == 0
    assert log.asked == 1
    log.speaks.set()
    assert len(await first) == len(await waiting) == 1, "without being asked to look again"


async def test_a_loop_that_was_held_takes_no_log_for_silent(
    silent: tuple[Counter, SilentLog],
) -> None:
    counter, log = silent
    first = asyncio.create_task(counter.ask("w0"))
    await eventually(lambda: log.asked == 1)
    time.sleep(1)  # noqa: ASYNC251 - so long the machine has no time for this process
    log.speaks.set()
    assert len(await counter.ask("w1")) == len(await first) == 1


async def test_a_claim_that_waits_alone_holds_back_no_others(
    silent: tuple[Counter, SilentLog],
) -> None:
    counter, log = silent
    standstill = counter.claim_queue.leases.standstill
    with standstill:
        log.speaks.set()
        for _ in range(8):
            with standstill:
                await asyncio.sleep(0.1)
        assert standstill.left_s == 0
        assert len(await counter.ask("w1")) == 1
