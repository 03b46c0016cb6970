"""Memory per unfinished task on the board, beyond its own input; and that finished plans leave."""

import gc
import tracemalloc
from collections.abc import AsyncGenerator

from msgspec import Raw

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.board.recent import RecentLimits, RecentPlans
from streams.log import Fact
from streams.plan.events import Cancelled, Event, Finished, Submitted, TaskSpec
from tests.bench.report import Result

INPUT = b'{"text":"' + b"x" * 500 + b'"}'


def _plan(tasks: int) -> Submitted:
    return Submitted(
        tasks=tuple(
            TaskSpec(id=f"task-{n}", kind="bench", input=Raw(bytes(bytearray(INPUT))))
            for n in range(tasks)
        )
    )


async def measure(scale: float) -> AsyncGenerator[Result]:
    """Ready tasks in plans of 100, which is what a backlog is made of."""
    plans = max(int(500 * scale), 20)
    board, sequence = Board(SharingRule(), "bench"), 0
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]

    def fold(plan_id: str, event: Event) -> None:
        nonlocal sequence
        sequence += 1
        board.apply(Fact(sequence, float(sequence), plan_id, None, event), float(sequence))
        for plan in board.drain():
            plan.drain()

    for n in range(plans):
        fold(f"plan-{n}", _plan(100))
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    for n in range(plans):
        fold(f"plan-{n}", Cancelled())
        fold(f"plan-{n}", Finished(status="CANCELLED"))
    board.recent = RecentPlans(RecentLimits())
    gc.collect()
    left = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    tasks = plans * 100
    yield Result(
        measure="memory per unfinished task beyond its input",
        value=held / tasks - len(INPUT),
        unit="bytes",
        at_most=1_000,
        seen={"tasks": tasks},
    )
    yield Result(
        measure="  left of it when its plan has finished",
        value=left / tasks,
        unit="bytes",
        at_most=100,
    )
