"""Appends the last fact of a plan whose tasks have all ended, in the background."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from projections.board.board import Board
from projections.listeners import Batch
from streams.log import Fact, LogFull, LogUnavailable

log = structlog.get_logger("holdfast.core")


class PlanClosing:
    """Closes each plan once at a time; the plan closer (a daemon) sweeps what is left over."""

    def __init__(
        self, board: Board, instance_id: str, finish: Callable[[str], Awaitable[None]]
    ) -> None:
        self._board = board
        self._instance_id = instance_id
        self._finish = finish
        self._closing: dict[str, asyncio.Task[None]] = {}

    def after(self, batch: Batch) -> None:
        """Close the plans that this instance's facts, just folded, have ended."""
        if self._board.finishable:
            mine = {
                fact.plan_id
                for fact in batch.facts
                if isinstance(fact, Fact) and fact.origin.instance == self._instance_id
            }
            for plan_id in self._board.finishable & mine:
                self.close(plan_id)

    def close(self, plan_id: str) -> None:
        """Append a plan's last fact in the background, unless that is under way."""
        if plan_id not in self._closing:
            self._closing[plan_id] = asyncio.create_task(self._close(plan_id))

    async def _close(self, plan_id: str) -> None:
        try:
            await self._finish(plan_id)
        except (LogUnavailable, LogFull) as error:
            log.warning("plan_not_closed", plan_id=plan_id, error=str(error))
        finally:
            del self._closing[plan_id]
