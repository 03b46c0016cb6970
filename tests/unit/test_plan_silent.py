"""Attempts never heard of cost no lost lease; those that outlive their time-out are failed."""

from collections.abc import Callable

import pytest

from streams.plan.decisions import Accept, NotAllowed
from streams.plan.events import Claimed, Failed
from streams.plan.limits import MAX_SILENT
from streams.plan.state import TIMEOUT
from tests.unit.plan_laws import portrait
from tests.unit.plan_story import (
    Step,
    break_down,
    checkpoint,
    claim,
    every,
    expire,
    given,
    heartbeat,
    later,
    overrun,
    progress,
    refolded,
    retry,
    start,
    task,
    work_on,
)

vanish = every(claim("a"), later(1))
"""One attempt whose owner never reports."""


def test_an_attempt_that_was_never_heard_of_costs_no_lost_lease() -> None:
    story = given(task("a", lease_s=1, max_lost_leases=0)).when(vanish, claim("a", by="w2"))
    story.then(a="RUNNING").has("a", attempt=2, lost=0, silent=1)


@pytest.mark.parametrize("sign", [start, heartbeat, progress, lambda a: checkpoint(a, "s")])
def test_each_sign_of_life_makes_the_lease_count(sign: Callable[[str], Step]) -> None:
    story = given(task("a", lease_s=1)).when(claim("a"), sign("a"), later(1), claim("a"))
    story.has("a", lost=1, silent=0)


def test_a_claim_that_starts_is_a_sign_of_life() -> None:
    story = given(task("a", lease_s=1)).when(work_on("a"), later(1), claim("a"))
    story.has("a", lost=1, silent=0)
    assert story.plan.closed[0][1].started_at == story.plan.created_at


def test_silence_is_free_so_many_times_and_then_it_costs() -> None:
    story = given(task("a", lease_s=1, max_lost_leases=1))
    for silent in range(MAX_SILENT + 1):
        story.when(vanish).has("a", silent=silent, lost=0)
    story.when(vanish).has("a", silent=MAX_SILENT, lost=1)
    story.when(claim("a")).answered(NotAllowed)
    story.when(expire("a")).then(a="FAILED").when(retry("a")).has("a", silent=0, lost=0)


def test_a_rebuild_without_the_heartbeats_that_have_expired_counts_the_same() -> None:
    story = given(task("a", lease_s=1)).when(claim("a"), heartbeat("a"), later(1), claim("a"))
    story.when(start("a"))
    left = [fact for fact in story.facts if type(fact.event).__name__ != "Heartbeat"]
    assert portrait(refolded(left)) == portrait(story.plan)


def test_facts_of_earlier_versions_count_each_lost_lease() -> None:
    story = given(task("a", lease_s=1)).when(vanish)
    assert not story.write("a", Claimed(owner="w2", attempt=2, lease_s=1, previous_owner="w1"))
    story.has("a", lost=1, silent=0)


# -- time-outs --------------------------------------------------------------------------------


def test_an_attempt_that_outlives_its_time_out_by_a_lease_fails_as_timeout_once() -> None:
    story = given(task("a", lease_s=5)).when(claim("a", timeout_s=10), later(3), start("a"))
    for _ in range(3):
        story.when(later(4.9), heartbeat("a"))
    story.when(overrun("a")).answered(NotAllowed).when(later(0.4), overrun("a"))
    story.then(a="REFINING").has("a", timeouts=1, retry=1)
    event = story.facts[-1].event
    assert isinstance(event, Failed)
    assert event.error_type == TIMEOUT
    story.when(overrun("a")).answered(NotAllowed)


def test_the_second_time_out_is_final_as_an_owners_own_would_be() -> None:
    story = given(task("a", lease_s=1))
    for _ in range(2):
        story.when(later(60), claim("a", timeout_s=1), later(2), overrun("a")).answered(Accept)
    story.then(a="FAILED").has("a", timeouts=2, retry=1)


def test_without_a_time_out_in_its_claim_only_the_owner_ends_an_attempt() -> None:
    story = given(task("a", timeout_s=1)).when(work_on("a"), later(1_000), overrun("a"))
    story.answered(NotAllowed).then(a="RUNNING")


def test_an_attempt_that_is_over_leaves_no_time_out_behind() -> None:
    story = given(task("a")).when(claim("a", timeout_s=1), break_down("a"))
    story.has("a", timeout_s=None, reported=False)
