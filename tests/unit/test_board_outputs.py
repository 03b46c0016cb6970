"""Outputs leave memory when no task needs them, and come back from the log when one does."""

import pytest
from msgspec import Raw

from projections.board.board import Board
from projections.board.lanes import SharingRule
from service.core.answers import Claim, ClaimRequest
from service.core.claim_inputs import claim_size
from service.core.claim_queue import ClaimQueue
from streams.decider import CommandAccepted, Outcome
from streams.log import LogUnavailable
from streams.plan import commands
from streams.plan.decisions import Duplicate, GuardReject
from streams.plan.events import Verdict
from streams.plan.outputs import INLINE_BYTES, output_at_hand
from tests.memory_log import MemoryLog
from tests.unit.claim_story import Instance, LogTime
from tests.unit.plan_story import claim, complete, critic, given, later, reject, release, run, task

MANY = 40
LARGE = 10_000


def text(size: int, letter: str = "x") -> bytes:
    return b'"' + letter.encode() * (size - 2) + b'"'


class World:
    """An instance, its log, and a claim queue whose answers end at ``answer_bytes``."""

    def __init__(self, *, output_bytes: int = 1_000_000, answer_bytes: int = 1_000_000) -> None:
        self.clock = LogTime()
        self.log = MemoryLog(self.clock)
        self.instance = Instance(self.log, self.clock)
        self.instance.board = Board(SharingRule(), "a", output_bytes=output_bytes)
        self.claim_queue = ClaimQueue(
            self.instance, poll_interval_s=3_600, answer_bytes=answer_bytes
        )

    async def claim(self, limit: int = 1, *kinds: str) -> list[Claim]:
        request = ClaimRequest(owner="w", limit=limit, kinds=kinds or None)
        return await self.claim_queue.claim(request, self.instance.origin)

    async def complete(self, claim: Claim, output: bytes) -> Outcome:
        return await self.instance.say(
            commands.Complete(
                plan_id=claim.plan_id,
                task_id=claim.task_id,
                owner="w",
                attempt=claim.attempt,
                output=Raw(output),
            )
        )

    async def run(self, *outputs: bytes, kind: str = "map") -> None:
        for output in outputs:
            (claimed,) = await self.claim(1, kind)
            assert isinstance(await self.complete(claimed, output), CommandAccepted)

    def held(self, plan_id: str = "p") -> int:
        """How many bytes of outputs the tasks of a plan have in memory."""
        plan = self.instance.board.knows(plan_id)
        assert plan is not None
        held = sum(len(task.held) for task in plan.tasks.values() if task.held is not None)
        assert held == self.instance.board.outputs.bytes
        return held


def fan(maps: int, reducers: int = 1, **settings: object) -> list:  # type: ignore[type-arg]
    names = [f"m{n}" for n in range(maps)]
    reduce = [
        task(f"r{n}", kind="reduce", after=" ".join(names), lease_s=60, **settings)
        for n in range(reducers)
    ]
    return [*(task(name, kind="map", lease_s=60) for name in names), *reduce]


async def test_an_output_is_in_memory_while_an_unfinished_task_needs_it() -> None:
    world = World()
    await world.instance.submit("p", *fan(2), task("alone", kind="map", lease_s=60))
    await world.run(*[text(LARGE)] * 3)
    assert world.held() == 2 * LARGE
    (reducer,) = await world.claim(1, "reduce")
    assert {each: bytes(output) for each, output in reducer.dependencies.items()} == {
        "m0": text(LARGE),
        "m1": text(LARGE),
    }
    await world.complete(reducer, text(LARGE))
    assert world.held() == 0


async def test_outputs_in_memory_are_bounded_and_the_rest_is_read_back_for_a_claim() -> None:
    world = World(output_bytes=3 * LARGE)
    await world.instance.submit("p", *fan(MANY))
    outputs = [text(LARGE, chr(ord("a") + n % 26)) for n in range(MANY)]
    await world.run(*outputs)
    assert world.held() == 3 * LARGE
    (reducer,) = await world.claim(1, "reduce")
    assert [bytes(each) for each in reducer.dependencies.values()] == outputs
    assert world.held() == 3 * LARGE


async def test_while_the_log_cannot_be_read_no_claim_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(output_bytes=0)
    await world.instance.submit("p", *fan(1))
    await world.run(text(LARGE))
    with monkeypatch.context() as patch:
        patch.setattr(world.log, "scan", _unavailable)
        with pytest.raises(LogUnavailable):
            await world.claim(1, "reduce")
    (reducer,) = await world.claim(1, "reduce")
    assert reducer.attempt == 1


async def _unavailable(*_: object) -> list:  # type: ignore[type-arg]
    raise LogUnavailable("it does not answer")


@pytest.mark.parametrize("size", [INLINE_BYTES, INLINE_BYTES + 1, LARGE])
def test_a_repeated_result_is_known_although_its_output_has_left_memory(size: int) -> None:
    escaped, other = text(size).replace(b"x", b"\\u0078", 1), text(size, "y")
    story = given(task("a")).when(claim("a"), complete("a", text(size), by="w1"))
    story.task("a").held = None
    story.when(complete("a", escaped, by="w1")).duplicate()
    story.when(complete("a", other, by="w1")).answered(GuardReject)


def test_a_repeated_verdict_is_known_by_its_feedback() -> None:
    judge = critic("c", of="a")
    story = given(task("a"), judge).when(run("a"), claim("c"))
    verdict = Verdict(pass_=True, feedback=Raw(text(LARGE)))
    story.when(complete("c", by="w1", verdict=verdict))
    assert output_at_hand(story.task("c")) == Raw(b'"done"')
    story.when(complete("c", by="w1", verdict=verdict)).answered(Duplicate)
    other = Verdict(pass_=True, feedback=Raw(text(LARGE, "y")))
    story.when(complete("c", by="w1", verdict=other)).answered(GuardReject)


def test_a_rejected_output_is_counted_out_and_the_next_one_counted_in() -> None:
    story = given(task("a"), critic("c", of="a"), task("b", after="c"))
    story.when(run("a", output=text(LARGE)), claim("c"), reject("c"))
    assert story.task("c").needs_bytes == 0
    story.when(claim("a"), release("a"), later(60), run("a", output=text(2 * LARGE)))
    assert story.task("c").needs_bytes == 2 * LARGE


async def test_an_answer_to_a_claim_ends_at_so_many_bytes() -> None:
    world = World(answer_bytes=50_000)
    await world.instance.submit("p", *fan(2, reducers=16))
    await world.run(text(LARGE), text(LARGE))
    first = await world.claim(16, "reduce")
    assert len(first) == 2
    assert sum(len(each) for claim in first for each in claim.dependencies.values()) <= 50_000
    assert len(await world.claim(16, "reduce")) == 2
    assert world.instance.board.places.claimable == 12


async def test_one_claim_is_given_whatever_its_size() -> None:
    world = World(answer_bytes=1)
    await world.instance.submit("p", *fan(1, reducers=2))
    await world.run(text(LARGE))
    assert len(await world.claim(16, "reduce")) == 1
    assert len(await world.claim(16, "reduce")) == 1


async def test_the_size_of_a_claim_covers_all_its_texts() -> None:
    world = World()
    await world.instance.submit("p", *fan(3, input=text(5_000)), context=Raw(text(7_000)))
    await world.run(*[text(LARGE)] * 3)
    plan = world.instance.board.plans["p"]
    expected = claim_size(plan, plan.tasks["r0"])
    assert 42_000 < expected < 42_000 + 2_000
