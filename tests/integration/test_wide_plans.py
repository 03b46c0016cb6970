"""A plan of 10,000 tasks is decided, folded, placed and made rows in parts."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.projector import Projector
from projections.read_models.restore import open_read_models
from streams.decider import CommandAccepted, transact
from streams.log import NO_ORIGIN
from streams.plan import commands
from streams.plan.events import Submitted, TaskSpec
from streams.plan.state import Plan
from tests.loop_time import LoopTime, longest_turn_s, watched
from tests.memory_log import MemoryLog

TASKS = 10_000
HELD_S = 0.04  # of this thread's processor time; a quiet machine stays below half of it
START_AT = 1_000.0
WRITTEN_S = 20.0


class World:
    """A projector on a log in memory, and the view that commands are decided on."""

    def __init__(self, projector: Projector) -> None:
        self.projector = projector

    def now(self) -> float:
        return START_AT

    def knows(self, plan_id: str) -> Plan | None:
        return self.projector.board.knows(plan_id)

    async def load(self, plan_id: str) -> Plan | None:
        return self.knows(plan_id)

    async def folded(self, sequence: int) -> str | None:
        return await self.projector.folded(sequence)

    def why_ignored(self, sequence: int, /) -> str | None:
        return self.projector.board.ignored.get(sequence)

    async def catch_up(self) -> None:
        await self.projector.catch_up()


async def submitted(path: Path, depends_on: tuple[str, ...]) -> LoopTime:
    """How long the loop was held while the plan was decided, folded and written to ``path``."""
    log = MemoryLog(lambda: START_AT)
    board = Board(SharingRule(), "a")
    database = await open_read_models(path)
    projector = Projector(
        log, board, database, epoch="e", now=lambda: START_AT, observe_times=lambda _: None
    )
    loops = [
        asyncio.create_task(projector.run()), asyncio.create_task(projector.flush_forever()),
    ]  # fmt: skip
    tasks = tuple(
        TaskSpec(id=f"t{n}", kind="echo", depends_on=depends_on if n else ()) for n in range(TASKS)
    )
    command = commands.Submit(plan_id="p", plan=Submitted(tasks=tasks))
    try:
        async with watched() as loop_time:
            outcome = await transact(command, World(projector), log, NO_ORIGIN)
            assert isinstance(outcome, CommandAccepted)
            await asyncio.sleep(0)
            assert board.places.claimable == (1 if depends_on else TASKS)
            assert await projector.flushed(outcome.sequence, WRITTEN_S)
    finally:
        for each in loops:
            each.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        rows = await database.read("SELECT count(*) FROM tasks", (), lambda _, row: row[0])
        await database.close()
    assert rows == [TASKS]
    assert loop_time.turns > 20
    return loop_time


@pytest.mark.timeout(180)
@pytest.mark.parametrize("depends_on", [(), ("t0",)], ids=["wide", "fan"])
async def test_others_go_on_while_a_plan_of_10_000_tasks_is_submitted_and_folded(
    tmp_path: Path, depends_on: tuple[str, ...]
) -> None:
    def story(number: int) -> Awaitable[LoopTime]:
        return submitted(tmp_path / f"read-{number}.sqlite", depends_on)

    assert await longest_turn_s(story, HELD_S) < HELD_S
