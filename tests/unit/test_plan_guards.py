"""Guards hold twice: decide refuses the stale, evolve ignores what was published by hand."""

from collections.abc import Callable

import msgspec
import pytest
from msgspec import Raw

from streams.plan.decisions import Accept, Decision, NotAllowed, NotFound
from streams.plan.events import (
    Claimed,
    Completed,
    Event,
    Failed,
    Heartbeat,
    Paused,
    Progress,
    Released,
    Started,
    Submitted,
    TokenUsage,
)
from tests.unit.plan_laws import portrait
from tests.unit.plan_story import (
    Step,
    Story,
    cancel,
    claim,
    complete,
    every,
    fail,
    finish,
    given,
    heartbeat,
    later,
    pause,
    progress,
    published,
    refolded,
    release,
    retry,
    run,
    start,
    task,
    unreadable,
    work_on,
)

WORDS: dict[str, Callable[..., Step]] = {
    "start": start,
    "heartbeat": heartbeat,
    "progress": progress,
    "complete": complete,
    "fail": fail,
    "release": release,
}
FACTS: dict[str, Callable[..., Event]] = {
    "started": Started,
    "heartbeat": lambda **fence: Heartbeat(lease_s=99, **fence),
    "progress": lambda **fence: Progress(data=Raw(b"1"), **fence),
    "completed": lambda **fence: Completed(output=Raw(b"1"), **fence),
    "failed": lambda **fence: Failed(error_type="x", **fence),
    "released": Released,
}
# How it comes about that (w1, attempt 1) no longer holds the lease, and the answer that it gets.
LOSSES: dict[str, tuple[Step, tuple[str, str | None, int]]] = {
    "another owner": (claim("a", by="w2"), ("RUNNING", "w2", 1)),
    "reclaimed": (every(claim("a"), later(1), claim("a", by="w2")), ("RUNNING", "w2", 2)),
    "reclaimed by itself": (every(claim("a"), later(1), claim("a")), ("RUNNING", "w1", 2)),
    "completed": (every(claim("a"), complete("a", b'"mine"')), ("COMPLETED", None, 1)),
    "failed": (every(claim("a"), fail("a", "mine", retryable=False)), ("FAILED", None, 1)),
    "will be retried": (every(claim("a"), fail("a", "mine", retry_in_s=0)), ("REFINING", None, 1)),
    "released": (every(claim("a"), release("a", reason="mine")), ("READY", None, 1)),
    "cancelled": (every(claim("a"), cancel), ("CANCELLED", None, 1)),
    "never claimed": (pause, ("READY", None, 0)),
}


def lost(how: str) -> Story:
    return given(task("a", lease_s=1), task("b", after="a")).when(LOSSES[how][0])


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("how", LOSSES)
def test_decide_refuses_an_owner_without_the_lease(word: str, how: str) -> None:
    story = lost(how)
    before = len(story.facts), portrait(story.plan)
    story.when(WORDS[word]("a", by="w1", attempt=1)).guard_rejected(*LOSSES[how][1])
    assert (len(story.facts), portrait(story.plan)) == before


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("how", LOSSES)
def test_evolve_ignores_an_owner_without_the_lease(fact: str, how: str) -> None:
    story = lost(how)
    before = portrait(story.plan)
    assert story.write("a", FACTS[fact](owner="w1", attempt=1))
    before["tasks"]["a"]["subject_sequence"] = story.sequence
    assert portrait(story.plan) == before
    assert portrait(refolded(story.facts)) == before


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize(("owner", "attempt"), [("w2", 2), ("w1", 1), ("w1", 3), ("", 2)])
def test_evolve_wants_both_owner_and_attempt(fact: str, owner: str, attempt: int) -> None:
    story = given(task("a")).when(claim("a"), release("a"), claim("a")).has("a", attempt=2)
    before = portrait(story.plan)
    assert story.write("a", FACTS[fact](owner=owner, attempt=attempt))
    before["tasks"]["a"]["subject_sequence"] = story.sequence
    assert portrait(story.plan) == before


@pytest.mark.parametrize("attempt", [0, 1, 3, 7])
def test_evolve_counts_attempts_one_by_one(attempt: int) -> None:
    story = given(task("a")).when(claim("a"), release("a"))
    assert story.write("a", Claimed(owner="w2", attempt=attempt, lease_s=9))
    story.then(a="READY").has("a", attempt=1, subject_sequence=story.sequence)


def test_evolve_ignores_a_reclaim_before_its_time() -> None:
    story = given(task("a", lease_s=10)).when(work_on("a"), later(9.9))
    assert story.write("a", Claimed(owner="w2", attempt=2, lease_s=9, previous_owner="w1"))
    story.has("a", owner="w1", attempt=1, lost=0)
    story.when(later(0.1), claim("a", by="w2")).has("a", owner="w2", attempt=2, lost=1)


def test_a_renewed_lease_is_judged_by_its_last_heartbeat() -> None:
    story = given(task("a", lease_s=10)).when(claim("a"), later(9), heartbeat("a"), later(9))
    assert story.write("a", Claimed(owner="w2", attempt=2, lease_s=9))
    story.when(heartbeat("a")).answered(Accept)


@pytest.mark.parametrize("status", ["PENDING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED"])
def test_evolve_ignores_a_claim_of_what_cannot_be_claimed(status: str) -> None:
    story = given(task("x"), task("a", after="x"))
    match status:
        case "COMPLETED":
            story.when(run("x"), run("a"))
        case "FAILED":
            story.when(run("x"), claim("a"), fail("a", retryable=False))
        case "SKIPPED":
            story.when(claim("x"), fail("x", retryable=False))
        case "CANCELLED":
            story.when(cancel)
        case _:
            pass
    story.then(a=status)
    assert story.write("a", Claimed(owner="w2", attempt=story.task("a").attempt + 1, lease_s=9))
    story.then(a=status)


def test_after_an_ignored_fact_the_next_command_still_knows_its_expectation() -> None:
    story = given(task("a")).when(claim("a"), published("a", Started(owner="evil", attempt=1)))
    story.when(complete("a")).answered(Accept, expected=3).then(a="COMPLETED")


def test_a_fact_on_the_wrong_subject_is_ignored() -> None:
    story = given(task("a")).when(claim("a"))
    assert story.write("a", Paused())
    assert story.write(None, Started(owner="w1", attempt=1))
    assert story.write(None, Submitted(tasks=(task("z"),)))
    assert story.write("nobody", Started(owner="w1", attempt=1))
    story.then(a="RUNNING", plan="RUNNING")
    assert len(story.plan.tasks) == 1


# -- saying it twice --------------------------------------------------------------------------


def test_the_same_result_twice_is_a_duplicate() -> None:
    usage = TokenUsage(input_tokens=1, output_tokens=2, total_tokens=3)
    for word in (
        complete("a", b'{"x": 1, "y": [2]}', by="w1", model_name="m", token_usage=usage),
        fail("a", "boom", by="w1", error_message="ouch"),
        fail("a", "boom", by="w1", retryable=False, token_usage=usage),
        release("a", by="w1", reason="drain"),
        release("a", by="w1", reason="drain", model_name="m", token_usage=usage),
    ):
        given(task("a")).when(claim("a"), word).answered(Accept).when(word).duplicate()


def test_the_tokens_of_a_released_attempt_are_kept() -> None:
    usage = TokenUsage(input_tokens=1, output_tokens=2, total_tokens=3, estimated=True)
    spent = release("a", by="w1", model_name="m", token_usage=usage)
    execution = given(task("a")).when(claim("a"), spent).plan.tasks["a"].execution
    assert execution is not None
    assert (execution.model_name, execution.token_usage) == ("m", usage)


def test_json_that_is_spelled_differently_is_the_same_result() -> None:
    story = given(task("a")).when(claim("a"), complete("a", b'{"x": 1, "y": 2}', by="w1"))
    story.when(complete("a", b'{"y":2,"x":1}', by="w1")).duplicate()


@pytest.mark.parametrize(
    "other",
    [
        complete("a", b"2", by="w1"),
        complete("a", b"1", by="w1", model_name="m"),
        complete("a", b"1", by="w1", token_usage=TokenUsage(total_tokens=1)),
        complete("a", b"1", by="w2"),
        complete("a", b"1", by="w1", attempt=2),
        fail("a", by="w1"),
        release("a", by="w1"),
    ],
)
def test_another_result_is_refused(other: Step) -> None:
    story = given(task("a")).when(claim("a"), complete("a", b"1", by="w1"), other)
    story.guard_rejected("COMPLETED", None, 1).has("a", output=b"1")


def test_the_result_of_an_attempt_that_was_lost_is_no_duplicate() -> None:
    word = complete("a", b"1", by="w1", attempt=1)
    story = given(task("a", lease_s=1)).when(claim("a"), later(1), claim("a", by="w2"), word)
    story.guard_rejected("RUNNING", "w2", 2)


def test_a_released_attempt_said_again_while_the_next_one_runs_is_a_duplicate() -> None:
    story = given(task("a")).when(claim("a"), release("a"), claim("a", by="w2"))
    story.when(release("a", by="w1", attempt=1)).duplicate().has("a", owner="w2")


def test_a_heartbeat_after_the_end_is_refused_not_a_duplicate() -> None:
    story = given(task("a")).when(claim("a"), complete("a"), heartbeat("a", by="w1"))
    story.guard_rejected("COMPLETED", None, 1)


# -- unreadable messages ----------------------------------------------------------------------

ABOUT_A = [claim("a"), heartbeat("a"), complete("a"), fail("a"), release("a"), start("a")]


@pytest.mark.parametrize("step", [*ABOUT_A, pause, cancel, finish, retry("a")])
def test_nothing_is_written_on_top_of_an_unreadable_fact_of_the_plan(step: Step) -> None:
    story = given(task("a")).when(claim("a"), unreadable(None))
    before = len(story.facts)
    story.when(step).answered(NotAllowed)
    assert "unreadable" in detail(story.answer)
    assert len(story.facts) == before


@pytest.mark.parametrize("step", ABOUT_A)
def test_nothing_is_written_on_top_of_an_unreadable_fact_of_the_task(step: Step) -> None:
    story = given(task("a"), task("b")).when(claim("a"), unreadable("a"), step).answered(NotAllowed)
    assert "unreadable" in detail(story.answer)
    story.when(run("b")).then(b="COMPLETED", a="RUNNING").when(cancel).then(plan="CANCELLED")


def detail(answer: Decision) -> str:
    return str(getattr(answer, "detail", ""))


def test_what_is_not_there_is_not_found() -> None:
    given(task("a")).when(claim("nobody")).answered(NotFound)
    assert "no-plan" in detail(decide_nothing())


def decide_nothing() -> Decision:
    from streams.plan import commands, decide  # noqa: PLC0415

    return decide.decide(commands.Pause(plan_id="no-plan"), None, 0.0)


def test_a_refusal_is_plain_data() -> None:
    story = given(task("a")).when(heartbeat("a", by="w1", attempt=1))
    assert msgspec.to_builtins(story.answer) == {
        "current": {"status": "READY", "owner": None, "attempt": 0}
    }
