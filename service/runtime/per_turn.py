"""What comes within one turn of a loop, handed on together: work for each turn, not for each thing.

Hundreds of callers go on in one turn when their batch has been stored.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class PerTurn(Generic[T]):
    """Calls ``hand_on`` in the next turn with all that came in this one; lives on one loop."""

    def __init__(self, hand_on: Callable[[list[T]], None]) -> None:
        self._hand_on = hand_on
        self._things: list[T] = []

    def add(self, things: Sequence[T]) -> None:
        """Hand these on, too."""
        if things and not self._things:
            asyncio.get_running_loop().call_soon(self._turn)
        self._things += things

    def _turn(self) -> None:
        things, self._things = self._things, []
        self._hand_on(things)
