"""Who waits for work is found by kind, in the order in which the requests came."""

import asyncio
import time

import pytest

from service.core.answers import Claim, ClaimRequest
from service.core.claim_queue import ClaimQueue
from service.core.demand import Demand
from service.core.waiters import Waiters
from service.ops.doctor.sources.shapes import waiting_kinds
from service.runtime.tuning import uncollected
from streams.plan.evolve import in_one_go
from tests.memory_log import MemoryLog
from tests.unit.claim_story import Instance, LogTime
from tests.unit.plan_story import task

MANY = 2_000


def request(owner: str, *kinds: str) -> ClaimRequest:
    return ClaimRequest(owner=owner, kinds=kinds or None, wait_s=30)


async def test_waiters_are_found_by_kind_in_the_order_they_came() -> None:
    waiters = Waiters()
    for owner, kinds in (("1", "xy"), ("2", ""), ("3", "y"), ("4", "x"), ("5", "z"), ("6", "yx")):
        waiters.add(request(owner, *kinds))
    assert [each.request.owner for each in waiters.of({"x"})] == ["1", "2", "4", "6"]
    assert [each.request.owner for each in waiters.of({"x", "y", "u"})] == ["1", "2", "3", "4", "6"]
    for each in waiters.of({"x"}):
        waiters.remove(each)
        waiters.remove(each)
    assert [each.request.owner for each in waiters.of({"x", "y", "z"})] == ["3", "5"]
    assert len(waiters) == 2
    assert [each.request.owner for each in waiters.clear()] == ["3", "5"]
    assert list(waiters.of({"y", "z"})) == []


class Crowd:
    """A claim queue at which many wait, each for a kind of its own."""

    def __init__(self, waiting: int) -> None:
        clock = LogTime()
        self.instance = Instance(MemoryLog(clock), clock)
        self.claim_queue = ClaimQueue(self.instance, poll_interval_s=3_600)
        self.asking = [self.ask(f"kind-{n}") for n in range(waiting)]

    def ask(self, *kinds: str) -> asyncio.Task[list[Claim]]:
        return asyncio.create_task(
            self.claim_queue.claim(request("w", *kinds), self.instance.origin)
        )

    async def leave(self) -> None:
        for each in self.asking:
            each.cancel()
        await asyncio.gather(*self.asking, return_exceptions=True)

    async def rounds(self, count: int) -> float:
        """Processor time for so many tasks, each claimed by one who waits; the least of three."""
        return min([await self._round(f"p{turn}-", count) for turn in range(3)])

    async def _round(self, prefix: str, count: int) -> float:
        with uncollected():  # what other tests have left
            started = time.thread_time()
            for n in range(count):
                worker = self.ask("work")
                await asyncio.sleep(0)
                await self.instance.submit(f"{prefix}{n}", task("t", kind="work"))
                self.claim_queue.serve_waiting()
                assert len(await worker) == 1
            return time.thread_time() - started


async def test_claims_that_wait_for_other_kinds_cost_nothing() -> None:
    few, many = Crowd(10), Crowd(MANY)
    await asyncio.sleep(0)
    await many.instance.submit("orphan", task("o", kind="nobody"))
    try:
        alone, crowded = await few.rounds(100), await many.rounds(100)
        assert crowded < 3 * alone + 0.02
        assert many.claim_queue.asking == MANY
    finally:
        await few.leave()
        await many.leave()


async def test_a_task_is_given_to_a_waiter_for_its_kind_although_it_came_late() -> None:
    crowd = Crowd(5)
    await asyncio.sleep(0)
    await crowd.instance.submit("p", task("t", kind="kind-3"))
    assert crowd.claim_queue.serve_waiting() == 1
    (claim,) = await crowd.asking[3]
    assert claim.kind == "kind-3"
    assert crowd.claim_queue.asking == 4
    await crowd.leave()


@pytest.mark.parametrize("most", [1, 3])
def test_demand_remembers_a_bounded_number_of_kinds(most: int) -> None:
    demand = Demand(most_kinds=most)
    assert demand.last_asked("a") is None
    for second, kind in enumerate("abcab"):
        demand.asked((kind,), second)
    assert demand.kinds() == (["c", "a", "b"] if most == 3 else ["b"])
    assert demand.last_asked("b") == 4
    demand.asked(None, 9)
    assert demand.last_asked("b") == 9
    assert demand.last_asked("never") == 9


async def test_the_doctor_sees_when_a_kind_was_asked_for_and_how_many_run() -> None:
    crowd = Crowd(0)
    await crowd.instance.submit("p", task("a", kind="x"), task("b", kind="x"), task("c", kind="y"))
    board, clock = crowd.instance.board, crowd.instance.clock
    await crowd.ask("x")
    clock.at += 4

    def seen() -> dict[str, tuple[int, float | None, int]]:
        waiting = in_one_go(waiting_kinds(board, clock.at, crowd.claim_queue.last_asked))
        return {each.kind: (each.tasks, each.asked_s, each.running) for each in waiting}

    assert seen() == {"x": (1, 4, 1), "y": (1, None, 0)}
    clock.at += 60
    board.places.advance(clock.at)
    assert seen()["x"] == (2, 64, 0), "its lease has expired"


async def test_a_worker_that_waits_asks_until_it_is_answered() -> None:
    crowd = Crowd(1)
    await asyncio.sleep(0)
    crowd.instance.clock.at += 20
    await crowd.leave()
    assert crowd.claim_queue.demand.last_asked("kind-0") == crowd.instance.clock.at
    crowd.instance.clock.at += 20
    assert crowd.claim_queue.last_asked("kind-0") == crowd.instance.clock.at - 20
    again = crowd.ask("kind-0")
    await asyncio.sleep(0)
    crowd.instance.clock.at += 25
    assert crowd.claim_queue.last_asked("kind-0") == crowd.instance.clock.at
    again.cancel()
