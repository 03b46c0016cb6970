"""Reads of a feed's log that a test watches and holds."""

import asyncio
from typing import Any

import pytest

from tests.unit.feed.world import World


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Scans:
    """Watches the reads of a world's log, and holds them while told to."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.under_way = self.most_at_once = 0
        self.go = asyncio.Event()
        self.go.set()
        self._scan = world.log.scan
        monkeypatch.setattr(world.log, "scan", self)

    async def __call__(self, *asked: Any) -> Any:
        self.asked.append(asked)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await turns(10)  # a server takes its time
            await self.go.wait()
            return await self._scan(*asked)
        finally:
            self.under_way -= 1
