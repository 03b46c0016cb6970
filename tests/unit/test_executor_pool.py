"""The worker pool: threads go to tasks in their turn, and short tasks hold the next claim back."""

import asyncio
from time import monotonic

import pytest

from service.executor.running.pool import PoolPlace, WorkerPool

HOLD_S = 30.0  # no test waits so long
SHORT_S = 0.05
LONG_S = 3600.0


async def _with_threads(pool: WorkerPool, tasks: int) -> list[PoolPlace]:
    """So many tasks of one claim, each with a thread."""
    assert pool.reserve(tasks) == tasks
    places = [pool.admit() for _ in range(tasks)]
    for place in places:
        await place.thread()
    return places


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_next_claim_waits_until_all_short_tasks_of_the_last_one_have_ended() -> None:
    pool = WorkerPool(4, 0)
    (other, *places) = await _with_threads(pool, 4)
    pool.came(3, HOLD_S)
    waiting = asyncio.create_task(pool.gathered())
    for place in places:
        await _turns()
        assert not waiting.done()
        place.close()
    await asyncio.wait_for(waiting, 1)
    assert pool.free == 3
    other.close()


async def test_it_waits_no_longer_than_it_was_told() -> None:
    pool = WorkerPool(2, 0)
    places = await _with_threads(pool, 2)
    pool.came(2, SHORT_S)
    places[0].close()
    began = monotonic()
    await pool.gathered()
    assert SHORT_S * 0.5 < monotonic() - began < HOLD_S


async def test_where_as_many_slots_are_free_it_does_not_wait() -> None:
    pool = WorkerPool(4, 0)
    places = await _with_threads(pool, 2)
    pool.came(2, HOLD_S)
    places[0].close()
    await asyncio.wait_for(pool.gathered(), 1)


async def test_where_tasks_last_longer_than_the_wait_it_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = WorkerPool(2, 0)
    places = await _with_threads(pool, 2)
    monkeypatch.setattr("service.executor.running.pool.monotonic", lambda: monotonic() + LONG_S)
    for place in places:
        place.close()
    await _with_threads(pool, 2)
    pool.came(2, HOLD_S)
    await asyncio.wait_for(pool.gathered(), 1)


async def test_the_end_of_the_pool_ends_the_wait() -> None:
    pool = WorkerPool(2, 0)
    await _with_threads(pool, 2)
    pool.came(2, HOLD_S)
    waiting = asyncio.create_task(pool.gathered())
    await _turns()
    pool.close()
    await asyncio.wait_for(waiting, 1)


async def test_a_free_thread_goes_to_the_task_that_waited_first() -> None:
    pool = WorkerPool(1, 2)
    pool.reserve(3)
    running, first, second = (pool.admit() for _ in range(3))
    assert running.take_thread()
    assert not first.take_thread()
    turns = [asyncio.create_task(each.thread()) for each in (first, second)]
    await _turns()
    assert (pool.running, pool.queued) == (1, 2)
    running.close()
    await _turns()
    assert [turn.done() for turn in turns] == [True, False]
    first.close()
    await turns[1]
    assert (pool.running, pool.queued) == (1, 0)


@pytest.mark.parametrize("freed", ["before", "at once", "after"])
async def test_a_thread_is_not_lost_with_a_task_that_stops_waiting(freed: str) -> None:
    pool = WorkerPool(1, 2)
    pool.reserve(3)
    running, gone, waiting = (pool.admit() for _ in range(3))
    assert running.take_thread()
    turns = [asyncio.create_task(each.thread()) for each in (gone, waiting)]
    await _turns()
    if freed == "before":  # its turn has come, and it has not heard of it
        running.close()
    turns[0].cancel()
    if freed == "at once":
        running.close()
    await _turns()
    assert turns[0].cancelled()
    gone.close()
    if freed == "after":
        running.close()
    await asyncio.wait_for(turns[1], 1)
    assert (pool.running, pool.queued) == (1, 0)
    waiting.close()
    assert (pool.running, pool.queued, pool.free) == (0, 0, 3)
