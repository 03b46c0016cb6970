"""Checkpoints in the fold: kept per key, fenced, bounded, dropped when no attempt needs them."""

import pytest
from msgspec import Raw

from streams.plan.decisions import Accept, GuardReject, NotAllowed, OverLimit
from streams.plan.events import Checkpointed, Heartbeat, TokenUsage
from streams.plan.limits import (
    MAX_CHECKPOINT_BYTES,
    MAX_CHECKPOINTS,
    MAX_CHECKPOINTS_BYTES,
)
from tests.unit.plan_laws import portrait
from tests.unit.plan_story import (
    Story,
    break_down,
    cancel,
    checkpoint,
    claim,
    complete,
    critic,
    every,
    fail,
    given,
    later,
    published,
    refolded,
    reject,
    release,
    retry,
    run,
    task,
)

WHOLE = b'"' + b"x" * (MAX_CHECKPOINT_BYTES - 2) + b'"'
USAGE = TokenUsage(input_tokens=3, output_tokens=2, cached_tokens=1)


def kept(story: Story, task_id: str = "a") -> dict[str, bytes]:
    found = story.task(task_id).checkpoints or {}
    return {key: bytes(each.held or Raw(b"away")) for key, each in found.items()}


def test_the_newest_value_of_each_key_is_kept_for_the_next_attempt() -> None:
    story = given(task("a")).when(claim("a"), checkpoint("a", "s", b"1"), checkpoint("a", "t"))
    story.when(checkpoint("a", "s", b"2"), fail("a", retry_in_s=0), claim("a"))
    assert kept(story) == {"s": b"2", "t": b"1"}
    story.when(checkpoint("a", "s", b"3"), release("a"))
    assert kept(story) == {"s": b"3", "t": b"1"}


def test_a_checkpoint_renews_the_lease_and_costs_no_sign_of_life() -> None:
    story = given(task("a", lease_s=10)).when(claim("a"), later(9), checkpoint("a", "s"))
    story.has("a", lease_until=story.at + 10, reported=True)


def test_a_stale_attempts_checkpoint_is_refused_and_changes_nothing() -> None:
    story = given(task("a", lease_s=1)).when(claim("a", by="w1"), checkpoint("a", "s", b"1"))
    story.when(later(1), claim("a", by="w2"))
    before = portrait(story.plan)
    story.when(checkpoint("a", "s", b"2", by="w1", attempt=1)).guard_rejected("RUNNING", "w2", 2)
    assert portrait(story.plan) == before
    stale = Checkpointed(owner="w1", attempt=1, key="s", value=Raw(b"2"), lease_s=9)
    story.when(published("a", stale))
    assert kept(story) == {"s": b"1"}
    assert len(story.ignored) == 1


@pytest.mark.parametrize("end", [complete("a"), every(fail("a", retryable=False), cancel), cancel])
def test_what_no_later_attempt_needs_is_dropped(end: object) -> None:
    story = given(task("a", on_failure="continue"), task("b"))
    story.when(claim("a"), checkpoint("a", "s"), end)  # type: ignore[arg-type]
    if story.task("a").status != "FAILED":
        assert story.task("a").checkpoints is None
    assert story.plan.kept[-1][2] is None or story.task("a").status == "FAILED"


def test_a_rejected_output_is_made_anew_without_checkpoints() -> None:
    story = given(task("a"), critic("c", of="a", after="a"))
    story.when(claim("a"), checkpoint("a", "s"), complete("a"), claim("c"), reject("c"))
    story.then(a="REFINING")
    assert story.task("a").checkpoints is None


def test_an_operators_retry_keeps_checkpoints_and_a_fresh_one_drops_them() -> None:
    story = given(task("a")).when(claim("a"), checkpoint("a", "s"), fail("a", retryable=False))
    story.when(retry("a"))
    assert kept(story) == {"s": b"1"}
    story.when(break_down("a"), retry("a", fresh=True)).then(a="READY")
    assert story.task("a").checkpoints is None


def test_too_large_a_value_is_refused_and_the_largest_is_kept() -> None:
    story = given(task("a")).when(claim("a"), checkpoint("a", "s", WHOLE)).answered(Accept)
    story.when(checkpoint("a", "s", WHOLE + b" ")).answered(OverLimit)
    story.when(
        published(
            "a", Checkpointed(owner="w1", attempt=1, key="t", value=Raw(WHOLE + b" "), lease_s=1)
        )
    )
    assert kept(story) == {"s": WHOLE}


def test_a_task_keeps_so_many_keys_and_bytes() -> None:
    story = given(task("a")).when(claim("a"))
    for key in range(MAX_CHECKPOINTS_BYTES // MAX_CHECKPOINT_BYTES):
        story.when(checkpoint("a", f"k{key}", WHOLE)).answered(Accept)
    story.when(checkpoint("a", "more")).answered(OverLimit)
    story.when(checkpoint("a", "k0", WHOLE[:-2] + b'y"')).answered(Accept)
    story = given(task("a")).when(claim("a"))
    for key in range(MAX_CHECKPOINTS):
        story.when(checkpoint("a", f"k{key}")).answered(Accept)
    story.when(checkpoint("a", "more")).answered(OverLimit)
    story.when(checkpoint("a", "k0", b"2")).answered(Accept)


def test_the_same_checkpoint_again_renews_the_lease_and_counts_nothing_twice() -> None:
    story = given(task("a")).when(claim("a"), checkpoint("a", "s", b"[1]", token_usage=USAGE))
    story.when(later(1), checkpoint("a", "s", b"[1]", token_usage=USAGE)).wrote("Heartbeat")
    story.when(checkpoint("a", "s", b"[1]")).wrote("Checkpointed")
    story.when(release("a"), claim("a"), checkpoint("a", "s", b"[1]")).wrote("Checkpointed")
    assert sum(isinstance(fact.event, Heartbeat) for fact in story.facts) == 1


def test_tokens_of_checkpoints_and_of_the_result_add_up() -> None:
    story = given(task("a")).when(claim("a"), checkpoint("a", "s", token_usage=USAGE))
    story.when(checkpoint("a", "t", token_usage=USAGE))
    story.when(complete("a", token_usage=TokenUsage(input_tokens=10)))
    execution = story.task("a").execution
    assert execution is not None
    assert execution.token_usage == TokenUsage(
        input_tokens=16, output_tokens=4, total_tokens=20, cached_tokens=2
    )


def test_a_rebuild_keeps_the_same() -> None:
    story = given(task("a", lease_s=1), task("b"))
    story.when(claim("a"), checkpoint("a", "s", b"1"), checkpoint("a", "t", WHOLE), later(1))
    story.when(claim("a", by="w2"), checkpoint("a", "s", b"2"), run("b"))
    assert portrait(refolded(story.facts)) == portrait(story.plan)


def test_without_a_lease_nothing_is_kept() -> None:
    given(task("a")).when(checkpoint("a", "s", attempt=1)).answered(GuardReject)
    given(task("a")).when(claim("a"), complete("a"), checkpoint("a", "s")).answered(GuardReject)
    given(task("a")).when(claim("a"), cancel, claim("a")).answered(NotAllowed)
