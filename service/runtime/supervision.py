"""Loops without which an instance is none: the first that ends says so, and the process follows."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

CANCEL_AGAIN_S = 1.0


def guard(
    stack: AsyncExitStack, died: asyncio.Future[str], **loops: Coroutine[Any, Any, None]
) -> None:
    """Run ``loops`` by their names until ``stack`` is left; whichever ends says so in ``died``."""
    for name, loop in loops.items():
        task = asyncio.create_task(loop, name=name)

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled():
                return
            reason = f"the loop '{task.get_name()}' has ended: {task.exception()!r}"
            if not died.done():
                died.set_result(reason)

        task.add_done_callback(ended)
        stack.push_async_callback(_cancelled, task)


async def _cancelled(task: asyncio.Task[None]) -> None:
    # Before Python 3.12 `asyncio.wait_for` can lose a cancellation, so one may not be enough.
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
