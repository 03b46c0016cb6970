"""Bounds what is done for many clients in one turn of the loop, so that other work goes on.

After a restart a thousand clients catch up at once. Each step of one is short; a thousand of them
in one turn would keep the loop from everything else.
"""

import asyncio
from collections import deque

STEPS = 2  # of one turn: each writes some 64 kB, which takes up to a millisecond


class Pace:
    """A gate that lets ``STEPS`` through in each turn of the loop, in the order of asking."""

    def __init__(self) -> None:
        self._left = STEPS
        self._queue: deque[asyncio.Future[None]] = deque()
        self._turning = False

    async def step(self) -> None:
        """Return when the caller may do one step, without an await."""
        if self._left and not self._queue:
            self._left -= 1
            self._turn_soon()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._turn_soon()
        await turn

    def _turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        self._left = STEPS
        while self._left and self._queue:
            turn = self._queue.popleft()
            if not turn.done():  # its client has gone otherwise
                turn.set_result(None)
                self._left -= 1
        if self._left < STEPS:
            self._turn_soon()
