"""A few handlers pass the gate at once, more only while the loop comes round in time."""

import asyncio
import time

from service.executor.running.gate import ALWAYS, Gate


async def test_a_default_pool_never_waits_and_each_end_makes_room() -> None:
    gate = Gate()
    for _ in range(ALWAYS):
        assert gate.has_room
        await gate.enter()
    assert not gate.has_room
    gate.leave()
    assert gate.has_room


async def test_more_pass_one_by_one_while_the_loop_is_in_time() -> None:
    gate = Gate()
    async with asyncio.timeout(30):
        await asyncio.gather(*(gate.enter() for _ in range(ALWAYS + 12)))


async def test_none_passes_while_the_loop_is_late_until_there_is_room() -> None:
    gate = Gate()
    for _ in range(ALWAYS):
        await gate.enter()
    one_more = asyncio.create_task(gate.enter())
    for _ in range(20):
        await asyncio.sleep(0)
        time.sleep(0.03)  # noqa: ASYNC251 - it holds the interpreter
    assert not one_more.done()
    gate.leave()
    for _ in range(200):
        time.sleep(0.03)  # noqa: ASYNC251
        await asyncio.sleep(0)
        if one_more.done():
            break
    assert one_more.done()
