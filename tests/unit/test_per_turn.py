"""What comes in one turn of the loop is handed on together, once."""

import asyncio

from service.runtime.per_turn import PerTurn


async def test_what_comes_in_one_turn_is_handed_on_together() -> None:
    turns: list[list[str]] = []
    names = PerTurn[str](turns.append)
    names.add(["a"])
    names.add([])
    names.add(["b", "c"])
    assert turns == []
    await asyncio.sleep(0)
    assert turns == [["a", "b", "c"]]
    names.add(["d"])
    await asyncio.sleep(0)
    assert turns == [["a", "b", "c"], ["d"]]


async def test_a_turn_in_which_nothing_comes_hands_on_nothing() -> None:
    turns: list[list[str]] = []
    names = PerTurn[str](turns.append)
    names.add([])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert turns == []
