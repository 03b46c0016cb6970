"""What a start folds in one go is what an instance that was there all the time has."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.integrity.verify import compare
from projections.listeners import FoldedFact
from projections.projector import Projector
from projections.read_models.restore import open_read_models
from streams.codec import HEADER_LINE, encode_headers, encode_payload
from streams.log import Fact
from streams.subjects import subject_of
from tests.integration.read_models_world import History
from tests.memory_log import MemoryLog

numbers = st.lists(st.integers(0, 16 * 3 * 4 * 2 * 3 - 1), min_size=1, max_size=120)
sizes = st.lists(st.integers(1, 30), max_size=20)


async def log_of(facts: list[Fact]) -> MemoryLog:
    """A log that holds ``facts``, each at its time."""
    at = [0.0]
    log = MemoryLog(lambda: at[0])
    for fact in facts:
        at[0] = fact.at
        heads = HEADER_LINE + encode_headers(fact.event, f"e{fact.sequence}", fact.origin)
        log.publish(subject_of(fact.plan_id, fact.task_id), encode_payload(fact.event), heads)
    return log


def standing(board: Board, now: float) -> dict[str, Any]:
    """What a board would do next, by names."""
    board.places.advance(now)
    return {
        "plans": sorted(board.plans),
        "claimable": sorted(
            (seat.plan.plan_id, seat.task.spec.id, seat.lane, seat.since)
            for seat in board.places.seats()
        ),
        "running": sorted((plan.plan_id, task.spec.id) for plan, task in board.places.running()),
        "kinds": dict(board.places.running_kinds),
        "expired": sorted((plan.plan_id, task.spec.id) for plan, task in board.places.expired()),
        "next_due": board.places.next_due(),
        "finishable": board.finishable,
        "unfinished": board.unfinished.total,
        "ignored": dict(board.ignored),
        "held": board.outputs.bytes,
    }


class Heard:
    """A listener that notes what it hears."""

    def __init__(self) -> None:
        self.sequences: list[int] = []

    def folded(self, fact: FoldedFact) -> None:
        self.sequences.append(fact.sequence)


@pytest.mark.timeout(240)  # many small files; shared machines are slow at those
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(numbers=numbers, sizes=sizes, news=st.integers(0, 60))
def test_the_past_in_one_go_equals_the_same_facts_as_they_came(
    numbers: list[int], sizes: list[int], news: int
) -> None:
    history = History()
    for number in numbers:
        history.choose(number)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(both_ways(history, sizes, news, Path(folder)))


async def both_ways(history: History, sizes: list[int], news: int, folder: Path) -> None:
    log = await log_of(history.facts)
    facts = await log.scan(0, 10_000)
    boards, heard = list[Board](), list[list[int]]()
    for name, is_placing in (("live", True), ("past", False)):
        board = Board(SharingRule(), "a")
        board.is_placing = is_placing
        database = await open_read_models(folder / f"{name}.sqlite")
        projector = Projector(
            log,
            board,
            database,
            epoch=log.epoch,
            now=lambda: history.at,
            observe_times=lambda _: None,
            news_after=0 if is_placing else news,
        )
        listener = Heard()
        projector.listeners.add("heard", listener.folded)
        projector.listeners.add_for_bad_facts("heard", listener.folded)
        at = 0
        for size in [*sizes, len(facts)]:
            if batch := facts[at : at + size]:
                await projector.step(batch)
            at += size
        await projector.arrive()
        await projector.flush()
        await database.close()
        boards.append(board)
        heard.append(listener.sequences)
    compared = compare(folder / "live.sqlite", folder / "past.sqlite")
    assert [str(each) for each in compared.differences] == []
    assert standing(boards[0], history.at) == standing(boards[1], history.at)
    assert heard[1] == [sequence for sequence in heard[0] if sequence > news]
