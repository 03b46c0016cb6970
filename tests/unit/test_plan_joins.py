"""When dependencies are done, when they are hopeless, and how far skipping spreads."""

from typing import Any

import pytest

from streams.plan.events import TaskSpec
from tests.unit.plan_story import (
    break_down,
    cancel,
    claim,
    complete,
    fail,
    given,
    retry,
    run,
    task,
)


def fan_in(join: str, on_failure: str = "continue", **settings: Any) -> list[TaskSpec]:
    """Three sources and one task that joins them."""
    sources = [task(name, on_failure=on_failure) for name in ("x", "y", "z")]
    return [*sources, task("j", after="x y z", join=join, **settings)]


def test_all_waits_for_each_one() -> None:
    story = given(*fan_in("all")).when(run("x"), run("y")).then(j="PENDING")
    story.when(run("z")).then(j="READY")


def test_all_goes_on_without_a_failed_one_that_says_continue() -> None:
    story = given(*fan_in("all")).when(break_down("x"), run("y"), run("z"))
    story.then(x="FAILED", j="READY", plan="RUNNING").when(run("j")).then(plan="COMPLETED")


def test_all_is_skipped_as_soon_as_one_has_ended_and_is_not_done() -> None:
    story = given(
        task("x", on_failure="continue"),
        task("skipped", after="x", join="any"),
        task("long"),
        task("j", after="skipped long"),
    )
    # Skipped itself, without `continue`: tasks that need it are skipped although `long` waits.
    story.when(break_down("x")).then(skipped="SKIPPED", j="SKIPPED", long="READY", plan="RUNNING")


def test_all_goes_on_without_a_skipped_one_that_says_continue() -> None:
    story = given(
        task("x", on_failure="continue"),
        task("skipped", after="x", join="any", on_failure="continue"),
        task("j", after="skipped"),
    )
    story.when(break_down("x")).then(skipped="SKIPPED", j="READY")


def test_any_is_ready_with_the_first_one_completed() -> None:
    given(*fan_in("any")).when(break_down("x")).then(j="PENDING").when(run("y")).then(j="READY")


def test_any_is_not_content_with_one_that_may_be_gone_on_without() -> None:
    story = given(*fan_in("any")).when(break_down("x"), break_down("y")).then(j="PENDING")
    story.when(break_down("z")).then(j="SKIPPED", plan="COMPLETED")


@pytest.mark.parametrize("quorum", [1, 2, 3])
def test_a_quorum_is_ready_when_that_many_are_completed(quorum: int) -> None:
    story = given(*fan_in("quorum", quorum=quorum))
    for done, name in enumerate("xyz", start=1):
        story.when(run(name)).then(j="READY" if done >= quorum else "PENDING")


@pytest.mark.parametrize("quorum", [1, 2, 3])
def test_a_quorum_is_skipped_when_it_can_no_longer_be(quorum: int) -> None:
    story = given(*fan_in("quorum", quorum=quorum))
    for failed, name in enumerate("xyz", start=1):
        story.when(break_down(name)).then(j="PENDING" if failed <= 3 - quorum else "SKIPPED")


@pytest.mark.parametrize("join", ["all", "any"])
def test_a_failure_that_fails_the_plan_skips_whatever_the_join(join: str) -> None:
    story = given(*fan_in(join, on_failure="fail_plan")).when(break_down("x"))
    story.then(j="SKIPPED", y="SKIPPED", z="SKIPPED", plan="FAILED")


def test_a_task_that_has_begun_is_not_skipped_when_the_plan_fails_and_its_result_counts() -> None:
    story = given(task("x"), task("y")).when(claim("y"), break_down("x"))
    story.then(y="RUNNING", plan="FAILED").when(complete("y")).then(y="COMPLETED", plan="FAILED")


def test_in_a_failed_plan_a_retryable_failure_is_not_tried_again() -> None:
    story = given(task("x"), task("y")).when(claim("y"), break_down("x"), fail("y", retry_in_s=0))
    story.then(y="SKIPPED", plan="FAILED")


def test_skipping_spreads_down_a_chain_of_5000_within_one_fold() -> None:
    chain = [task(f"t{n}", after=f"t{n - 1}") for n in range(1, 5_000)]
    story = given(task("x", on_failure="continue"), task("t0", after="x", join="any"), *chain)
    story.when(break_down("x")).then(t0="SKIPPED", t2500="SKIPPED", t4999="SKIPPED")
    assert story.sequence == 3
    assert story.plan.counts["SKIPPED"] == 5_000


def test_a_retry_wakes_a_chain_of_5000_and_cancel_ends_it() -> None:
    chain = [task(f"t{n}", after=f"t{n - 1}") for n in range(1, 5_000)]
    story = given(task("t0"), *chain).when(break_down("t0")).then(t4999="SKIPPED")
    story.when(retry("t0")).then(t0="READY", t1="PENDING", t4999="PENDING")
    story.when(cancel).then(t4999="CANCELLED")


def test_a_diamond_joins_once() -> None:
    story = given(
        task("a"), task("l", after="a"), task("r", after="a"), task("z", after="l r")
    ).when(run("a"))
    story.then(l="READY", r="READY", z="PENDING").when(run("l")).then(z="PENDING")
    story.when(run("r")).then(z="READY").when(run("z")).then(plan="COMPLETED")
