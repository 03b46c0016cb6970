"""What listens to the fold cannot stop it: a failure is counted, logged, and the fold goes on."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.feed.entry import entries_of
from projections.listeners import Batch, FoldedFact, Listeners
from projections.projector import Projector
from service.signals.second_holder import SecondHolder
from streams.log import BadFact, Draft, Fact, Origin
from streams.plan.events import Claimed, Heartbeat, Submitted, TaskSpec
from streams.plan.fold import fold_fact, fold_plan
from tests.memory_log import MemoryLog


class Heard:
    """Remembers the sequences that it was called with, and fails for those that it is asked to."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.sequences: list[int] = []
        self.fails_at = fails_at

    def folded(self, fact: FoldedFact) -> None:
        if fact.sequence == self.fails_at:
            raise ValueError("counters can only be incremented")
        self.sequences.append(fact.sequence)


@pytest.fixture
def failures() -> list[str]:
    return []


@pytest.fixture
async def projector(failures: list[str]) -> AsyncIterator[Projector]:
    log = MemoryLog()
    projector = Projector(
        log,
        Board(SharingRule(), "a"),
        None,  # type: ignore[arg-type]  # nothing is flushed here
        epoch="memory-1",
        now=lambda: 0.0,
        observe_times=lambda _: None,
        on_listener_failure=failures.append,
    )
    running = asyncio.create_task(projector.run())
    yield projector
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def submit(projector: Projector, plan_id: str) -> None:
    plan = Submitted(tasks=(TaskSpec(id="t", kind="k"),))
    draft = Draft(plan_id=plan_id, task_id=None, expected=0, events=(plan,))
    await projector.source.append(draft)
    await projector.catch_up()


async def test_a_listener_that_fails_is_counted_and_the_others_hear_every_fact(
    projector: Projector, failures: list[str]
) -> None:
    broken, sound, batches = Heard(fails_at=2), Heard(), list[int]()
    projector.listeners.add("metrics", broken.folded)
    projector.listeners.add("audit", sound.folded)
    projector.listeners.add_for_batches("feed", lambda *_: 1 // 0)
    projector.listeners.add_for_batches("claims", lambda batch: batches.append(batch.position))
    with capture_logs() as logged:
        for number in range(3):
            await submit(projector, f"p{number}")
    assert (broken.sequences, sound.sequences) == ([1, 3], [1, 2, 3])
    assert batches[-1] == 3
    assert failures.count("metrics") == 1
    assert failures.count("feed") == len(batches)
    (told,) = (each for each in logged if each.get("listener") == "metrics")
    assert told["sequence"] == 2


BAD = BadFact(7, 0.0, "plans.p", "no JSON")
RENEWED = Heartbeat(owner="w", attempt=1, lease_s=5)
BEGUN = Claimed(owner="w", attempt=1, lease_s=5)


def test_a_listener_hears_the_facts_that_count_of_its_events() -> None:
    listeners, all_of_them, few, batches = Listeners(), Heard(), Heard(), list[Batch]()
    listeners.add("story", all_of_them.folded)
    listeners.add("metrics", few.folded, (Claimed,))
    listeners.add_for_batches("feed", batches.append)
    told = [(BEGUN, None), (RENEWED, None), (BEGUN, "lost a race")]
    facts = [Fact(sequence, 0.0, "p", "t", event) for sequence, (event, _) in enumerate(told)]
    for fact, (_, ignored) in zip(facts, told, strict=True):
        listeners.fact(fact, ignored)
    listeners.batch(facts, 2)
    assert (all_of_them.sequences, few.sequences) == ([0, 1], [0])
    listeners.remove("story")
    listeners.fact(Fact(3, 0.0, "p", "t", RENEWED), None)
    listeners.batch([], 3)
    assert all_of_them.sequences == [0, 1]
    counted = [[fact.sequence for fact in batch.counted] for batch in batches]
    assert (counted, [batch.position for batch in batches]) == ([[0, 1], [3]], [2, 3])


def test_a_listener_that_fails_for_every_fact_does_not_fill_the_log() -> None:
    listeners, failures = Listeners(), 1_000
    listeners.add_for_bad_facts("metrics", Heard(fails_at=7).folded)
    with capture_logs() as logged:
        for _ in range(failures):
            listeners.fact(BAD, BAD.reason)
    assert len(logged) == 1


def test_a_listener_may_leave_while_it_is_called() -> None:
    listeners, heard = Listeners(), Heard()

    def story(fact: Fact) -> None:
        heard.folded(fact)
        listeners.remove("story")

    listeners.add("story", story)
    for sequence in (1, 2):
        listeners.fact(Fact(sequence, 0.0, "p", "t", RENEWED), None)
    assert heard.sequences == [1]


def test_an_event_that_cannot_be_shown_is_sent_as_such_under_its_id() -> None:
    plan = Submitted(tasks=(TaskSpec(id="t", kind="k"),))
    in_no_year = Fact(7, 1e300, "p", None, plan)
    (entry,) = entries_of([in_no_year])
    assert entry.text().startswith(b"id: 7\nevent: plan.submitted\ndata: {")
    assert b'"unreadable":"OverflowError' in entry.text()


def test_a_fact_that_raises_in_the_fold_is_ignored_and_blocks_writes_to_its_task_only() -> None:
    spec = Submitted(tasks=(TaskSpec(id="t", kind="k"), TaskSpec(id="u", kind="k")))
    claim = Claimed(owner="w", attempt=1, lease_s="soon")  # type: ignore[arg-type]
    submitted, claimed = Fact(1, 0.0, "p", None, spec), Fact(2, 0.0, "p", "t", claim)
    plan = fold_plan([submitted])
    assert plan is not None
    assert "cannot be folded" in (fold_fact(plan, claimed) or "")
    assert plan.tasks["t"].unreadable_at == 2
    assert plan.tasks["u"].unreadable_at is None


def test_only_what_this_process_wrote_is_counted_whatever_its_instance_is_called() -> None:
    listeners, own, everyones, bad = Listeners(wrote=MemoryLog().wrote), Heard(), Heard(), Heard()
    listeners.add("metrics", own.folded, only_own=True)
    listeners.add("earlier_claims", everyones.folded)
    listeners.add_for_bad_facts("metrics", bad.folded)
    plan = Submitted(tasks=(TaskSpec(id="t", kind="k"),))
    same = Origin(instance="pod-0")

    def fact(sequence: int, event_id: str, origin: Origin = same) -> Fact:
        return Fact(sequence, 0.0, "p", None, plan, event_id, origin)

    listeners.fact(fact(1, "earlier-process-1"), None)
    listeners.fact(fact(3, "memory-1"), None)
    listeners.fact(fact(4, "memory-2"), "lost a race")
    listeners.fact(fact(5, "by hand", Origin()), "submitted a second time")
    listeners.fact(BAD, BAD.reason)
    assert (own.sequences, everyones.sequences) == ([3], [1, 3])
    assert bad.sequences == [5, 7]


def test_a_second_process_of_the_same_id_is_named_once_and_an_earlier_one_is_not() -> None:
    told: list[int] = []
    holder = SecondHolder("pod-0", MemoryLog(), 1_000.0, lambda _, sequence: told.append(sequence))
    plan = Submitted(tasks=(TaskSpec(id="t", kind="k"),))

    def fact(sequence: int, at: float, event_id: str, instance: str = "pod-0") -> Fact:
        return Fact(sequence, at, "p", None, plan, event_id, Origin(instance=instance))

    def hear(*facts: Fact) -> None:
        holder.folded(Batch(facts, (), facts[-1].sequence))

    hear(
        fact(1, 900.0, "earlier-1"),  # folded anew
        fact(2, 1_002.0, "earlier-2"),  # was on its way when it was killed
        fact(3, 1_050.0, "memory-1"),  # our own
        fact(4, 1_050.0, "other-1", "pod-1"),
    )
    assert (told, holder.seen_at) == ([], None)
    hear(fact(5, 1_060.0, "second-1"), fact(6, 1_061.0, "second-2"))
    assert (told, holder.seen_at) == ([5], 1_061.0)
