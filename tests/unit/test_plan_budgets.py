"""Two budgets that never mix, time-outs, free releases, and leases that the monitor closes."""

from typing import Any

import pytest

from streams.plan.decisions import Accept, NotAllowed
from streams.plan.events import Claimed, Failed, Released
from streams.plan.retry import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    LONGEST_RELEASE_DELAY_S,
    SPREAD,
    backoff_s,
)
from streams.plan.state import LEASE_EXPIRED, TIMEOUT
from tests.unit.plan_story import (
    Step,
    Story,
    break_down,
    claim,
    complete,
    critic,
    every,
    expire,
    fail,
    given,
    heartbeat,
    later,
    pause,
    published,
    release,
    resume,
    retry,
    task,
    work_on,
)

lose = every(work_on("a"), later(1))
"""One attempt whose owner dies at work."""


def leased(**settings: Any) -> Story:
    return given(task("a", lease_s=1, **settings))


def test_three_retries_are_three_more_tries() -> None:
    story = given(task("a"))
    for tries in range(1, 5):
        story.then(a="READY" if tries == 1 else "REFINING")
        story.when(claim("a"), fail("a", retry_in_s=0))
    story.then(a="FAILED").has("a", attempt=4, retry=3)


def test_no_retries_means_one_try() -> None:
    given(task("a", max_retries=0)).when(claim("a"), fail("a")).then(a="FAILED")


def test_what_cannot_be_retried_fails_at_once() -> None:
    given(task("a")).when(break_down("a")).then(a="FAILED").has("a", retry=0)


def test_without_a_wish_the_delay_doubles_within_bounds_and_is_no_dice() -> None:
    delays = [backoff_s(tries, 7) for tries in range(12)]
    for tries, delay_s in enumerate(delays):
        plain = min(FIRST_DELAY_S * 2**tries, LONGEST_DELAY_S)
        assert plain <= delay_s <= plain * (1 + SPREAD)
    assert delays == [backoff_s(tries, 7) for tries in range(12)]
    assert len({backoff_s(0, token) for token in range(100)}) > 50
    story = given(task("a")).when(claim("a"), fail("a"))
    story.has("a", claimable_at=story.at + backoff_s(0, 2))


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_a_lease_may_be_lost_that_often(allowed: int) -> None:
    story = leased(max_lost_leases=allowed)
    for lost in range(allowed + 1):
        story.when(lose).then(a="RUNNING").has("a", lost=lost, silent=0, retry=0)
    story.when(claim("a", by="w9")).answered(NotAllowed)
    story.when(expire("a")).then(a="FAILED", plan="FAILED").has("a", attempt=allowed + 1)
    error = story.task("a").error
    assert error is not None
    assert error[0] == LEASE_EXPIRED
    assert "w1" in error[1]


def test_the_budgets_do_not_mix() -> None:
    story = given(task("a", lease_s=1, max_retries=1, max_lost_leases=1))
    story.when(lose, claim("a")).has("a", lost=1, retry=0)
    story.when(fail("a", retry_in_s=0)).has("a", lost=1, retry=1).when(lose)
    story.when(claim("a")).answered(NotAllowed)
    story.when(heartbeat("a"), complete("a")).then(a="COMPLETED")


def test_releases_are_free_however_many() -> None:
    story = given(task("a", max_retries=0, max_lost_leases=0))
    for _ in range(20):
        story.when(claim("a"), release("a"), later(LONGEST_RELEASE_DELAY_S))
    story.then(a="READY").has("a", attempt=20, retry=0, lost=0)


def test_a_task_given_back_again_and_again_is_offered_ever_later() -> None:
    story = given(task("a"))
    waits: list[float] = []
    for _ in range(14):
        story.when(claim("a"), release("a"))
        claimable_at = story.task("a").claimable_at
        assert claimable_at is not None
        waits.append(round(claimable_at - story.at, 3))
        story.at = claimable_at
    assert waits[:6] == [0, 0, 0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == LONGEST_RELEASE_DELAY_S


@pytest.mark.parametrize("end", [complete("a"), fail("a", retry_in_s=0)])
def test_an_attempt_that_ends_otherwise_makes_releases_free_again(end: Step) -> None:
    story = given(task("a"), critic("c", of="a"))
    story.when(*[every(claim("a"), release("a"), later(1))] * 4, claim("a"), end)
    assert story.task("a").releases == 0


def test_an_owner_chooses_when_a_task_that_it_gives_back_is_offered_again() -> None:
    story = given(task("a")).when(claim("a"), release("a", retry_in_s=60, by="w1"))
    story.then(a="READY").when(claim("a")).answered(NotAllowed)
    story.when(later(60), claim("a", by="w2")).answered(Accept)
    story.when(release("a", retry_in_s=0), claim("a")).answered(Accept)
    given(task("a")).when(
        claim("a"), fail("a", retry_in_s=0), claim("a"), release("a", retry_in_s=60)
    ).then(a="REFINING").when(later(59), claim("a")).answered(NotAllowed)


def test_time_outs_are_retried_that_often_and_no_more() -> None:
    story = given(task("a", max_retries=9))
    for _ in range(2):
        story.when(claim("a"), fail("a", TIMEOUT, retry_in_s=0, timeout_retry_max=2))
        story.then(a="REFINING")
    story.when(claim("a"), fail("a", TIMEOUT, retry_in_s=0, timeout_retry_max=2)).then(a="FAILED")
    story.has("a", retry=2)


def test_other_failures_do_not_count_as_time_outs_and_time_outs_use_retries() -> None:
    story = given(task("a", max_retries=2))
    story.when(claim("a"), fail("a", retry_in_s=0), claim("a"), fail("a", TIMEOUT, retry_in_s=0))
    story.then(a="REFINING").has("a", timeouts=1, retry=2)
    story.when(claim("a"), fail("a", retry_in_s=0)).then(a="FAILED")


def test_time_outs_without_retries_left_are_final() -> None:
    given(task("a", max_retries=0)).when(claim("a"), fail("a", TIMEOUT)).then(a="FAILED")


def test_an_operator_retry_forgives_time_outs() -> None:
    story = given(task("a")).when(claim("a"), fail("a", TIMEOUT, timeout_retry_max=0), retry("a"))
    story.when(claim("a"), fail("a", TIMEOUT, retry_in_s=0)).then(a="REFINING")


def test_in_a_paused_plan_an_expired_lease_is_released_free_of_charge() -> None:
    story = leased().when(lose, pause, expire("a")).answered(Accept).then(a="READY", plan="PAUSED")
    story.has("a", lost=0, retry=0)
    assert story.facts[-1].event == Released(owner="w1", attempt=1, reason=LEASE_EXPIRED)
    story.when(resume, claim("a")).then(a="RUNNING")


def test_in_a_paused_plan_spent_lost_leases_fail_all_the_same() -> None:
    leased(max_lost_leases=0).when(lose, pause, expire("a")).then(a="FAILED", plan="FAILED")


def test_in_a_failed_plan_an_expired_lease_fails() -> None:
    story = given(task("a", lease_s=1), task("bad")).when(claim("a"), break_down("bad"), later(1))
    story.when(claim("a", by="w2")).answered(NotAllowed, status="FAILED")
    story.when(expire("a")).then(a="FAILED").has("a", lost=0)
    event = story.facts[-1].event
    assert isinstance(event, Failed)
    assert (event.error_type, event.retry_in_s) == (LEASE_EXPIRED, None)
    assert story.plan.can_finish


def test_in_a_failed_plan_a_lease_that_holds_is_left_alone() -> None:
    story = given(task("a", lease_s=5), task("bad")).when(claim("a"), break_down("bad"), later(1))
    story.when(expire("a")).answered(NotAllowed).then(a="RUNNING")


def test_a_paused_plan_that_failed_is_a_failed_one_for_the_monitor() -> None:
    story = given(task("a", lease_s=1), task("bad")).when(claim("a"), claim("bad"), pause)
    story.when(fail("bad", retryable=False), later(1), expire("a")).then(a="FAILED")


def test_expiring_twice_changes_nothing_the_second_time() -> None:
    story = leased(max_lost_leases=0).when(lose, expire("a"))
    before = story.sequence
    story.when(expire("a")).answered(NotAllowed, status="FAILED")
    assert story.sequence == before


def test_a_reclaim_beyond_the_budget_put_there_by_hand_is_ignored() -> None:
    story = leased(max_lost_leases=0).when(lose)
    story.when(published("a", Claimed(owner="w2", attempt=2, lease_s=9)))
    story.has("a", owner="w1", attempt=1, lost=0)
