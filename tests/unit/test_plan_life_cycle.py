"""One test per row of the state table of DESIGN §4."""

import pytest

from streams.plan.decisions import Accept, NotAllowed
from streams.plan.events import Claimed
from streams.plan.lifecycle import TRANSITIONS
from streams.plan.state import LEASE_EXPIRED
from tests.unit.plan_story import (
    START_AT,
    accept,
    break_down,
    cancel,
    claim,
    complete,
    critic,
    expire,
    fail,
    given,
    heartbeat,
    later,
    pause,
    progress,
    reject,
    release,
    resume,
    retry,
    run,
    start,
    task,
    work_on,
)


def test_submitted_is_ready_without_dependencies_and_pending_with() -> None:
    given(task("a"), task("b", after="a")).then(a="READY", b="PENDING", plan="READY")


def test_satisfied_dependencies_make_a_task_ready_at_that_moment() -> None:
    story = given(task("a"), task("b", after="a")).when(claim("a"), later(5), complete("a"))
    story.then(b="READY").has("b", claimable_at=START_AT + 5)


def test_unsatisfiable_dependencies_skip_a_task() -> None:
    given(task("a", on_failure="continue"), task("b", after="a", join="any")).when(
        break_down("a")
    ).then(a="FAILED", b="SKIPPED", plan="COMPLETED")


def test_claimed_runs_the_next_attempt_under_a_lease() -> None:
    story = given(task("a", lease_s=10)).when(claim("a", by="w1"))
    story.then(a="RUNNING", plan="RUNNING")
    story.has("a", owner="w1", attempt=1, lease_until=START_AT + 10, claimed_sequence=2)


def test_the_claimer_may_choose_its_lease_and_heartbeats_keep_that_length() -> None:
    story = given(task("a", lease_s=10)).when(claim("a", lease_s=40), later(30), heartbeat("a"))
    story.has("a", lease_s=40, lease_until=START_AT + 70)


def test_an_expired_lease_is_reclaimed_with_the_previous_owner_named() -> None:
    story = given(task("a", lease_s=10)).when(work_on("a", by="w1"), later(10), claim("a", by="w2"))
    story.then(a="RUNNING").has("a", owner="w2", attempt=2, lost=1, retry=0)
    event = story.facts[-1].event
    assert isinstance(event, Claimed)
    assert event.previous_owner == "w1"
    assert event.lane == "ready"


def test_the_lost_attempt_is_handed_over_as_lost() -> None:
    story = given(task("a", lease_s=10)).when(claim("a"), later(10), claim("a"))
    closed = story.plan.drain().closed
    assert [(who, lost.attempt, lost.status) for who, lost in closed] == [("a", 1, "lost")]
    assert story.plan.drain() == ({}, {}, [], [], [])


def test_a_running_lease_is_not_claimed() -> None:
    story = given(task("a", lease_s=10)).when(claim("a"), later(9.999), claim("a", by="w2"))
    story.answered(NotAllowed, status="RUNNING").has("a", owner="w1", attempt=1)


def test_completed_keeps_the_output() -> None:
    story = given(task("a")).when(claim("a"), complete("a", output=b'{"n":1}'))
    story.then(a="COMPLETED", plan="COMPLETED").has("a", output=b'{"n":1}', owner=None)


def test_failed_with_a_delay_is_refining_and_claimable_after_it() -> None:
    story = given(task("a")).when(claim("a"), fail("a", retry_in_s=7))
    story.then(a="REFINING").has("a", retry=1, claimable_at=START_AT + 7, error=("boom", ""))
    story.when(later(6.9), claim("a")).answered(NotAllowed, status="REFINING")
    story.when(later(0.1), claim("a")).then(a="RUNNING").has("a", attempt=2)
    event = story.facts[-1].event
    assert isinstance(event, Claimed)
    assert event.lane == "refining"
    assert event.previous_owner is None


def test_failed_for_good_is_failed_and_fails_the_plan() -> None:
    given(task("a"), task("b")).when(break_down("a")).then(a="FAILED", b="SKIPPED", plan="FAILED")


def test_released_is_ready_again_and_costs_nothing() -> None:
    story = given(task("a")).when(claim("a"), later(3), release("a", reason="drain"))
    story.then(a="READY").has("a", retry=0, lost=0, attempt=1, claimable_at=START_AT + 3)


def test_released_after_a_retry_is_refining_again() -> None:
    story = given(task("a")).when(claim("a"), fail("a", retry_in_s=1), later(1), claim("a"))
    story.when(later(1), release("a")).then(a="REFINING")
    story.has("a", retry=1, lost=0, claimable_at=START_AT + 2)


def test_a_reject_reopens_the_target_with_its_feedback() -> None:
    story = given(task("a"), critic("c", of="a")).when(run("a"), claim("c"), reject("c", b'"no"'))
    story.then(a="REFINING", c="PENDING").has("a", retry=1, feedback=b'"no"', output=b"null")
    story.when(claim("a"), complete("a", output=b"2")).then(a="COMPLETED", c="READY")
    story.when(claim("c"), accept("c")).then(a="COMPLETED", c="COMPLETED", plan="COMPLETED")
    story.has("a", output=b"2", attempt=2)


def test_a_reject_with_spent_retries_fails_the_target_as_rejected() -> None:
    story = given(task("a", max_retries=0), critic("c", of="a"))
    story.when(run("a"), claim("c"), reject("c"))
    story.then(a="FAILED", c="COMPLETED", plan="FAILED")
    error = story.task("a").error
    assert error is not None
    assert error[0] == "rejected"


@pytest.mark.parametrize("status", ["PENDING", "READY", "REFINING"])
def test_a_failed_plan_skips_what_has_not_begun(status: str) -> None:
    story = given(task("bad"), task("a"), task("b", after="a"))
    name = "b" if status == "PENDING" else "a"
    if status == "REFINING":
        story.when(claim("a"), fail("a", retry_in_s=0))
    story.then(**{name: status}).when(break_down("bad")).then(**{name: "SKIPPED"})


def test_an_operator_retry_gives_fresh_budgets() -> None:
    story = given(task("a", lease_s=1, max_retries=1), task("b", after="a"))
    story.when(work_on("a"), later(1), claim("a"), fail("a", retry_in_s=0), claim("a"), fail("a"))
    story.then(a="FAILED", b="SKIPPED", plan="FAILED").has("a", retry=1, lost=1, attempt=3)
    story.when(retry("a")).then(a="READY", b="PENDING", plan="RUNNING")
    story.has("a", retry=0, lost=0, timeouts=0, attempt=3)
    story.when(run("a"), run("b")).then(plan="COMPLETED").has("a", attempt=4)


def test_cancel_ends_every_unfinished_task_at_once() -> None:
    story = given(
        task("done"),
        task("running"),
        task("ready"),
        task("refining"),
        task("waiting", after="ready"),
    )
    story.when(run("done"), claim("refining"), fail("refining", retry_in_s=0), claim("running"))
    story.when(cancel).then(
        plan="CANCELLED", done="COMPLETED", running="CANCELLED", ready="CANCELLED",
        refining="CANCELLED", waiting="CANCELLED",
    )  # fmt: skip
    story.when(heartbeat("running", by="w1")).guard_rejected("CANCELLED", None, 1)
    execution = story.task("running").execution
    assert execution is not None
    assert execution.status == "cancelled"


def test_started_is_noted_once() -> None:
    story = given(task("a")).when(claim("a"), later(1), start("a"), later(1), start("a"))
    story.duplicate()
    execution = story.task("a").execution
    assert execution is not None
    assert execution.started_at == START_AT + 1


def test_a_heartbeat_renews_the_lease_from_its_own_log_time() -> None:
    story = given(task("a", lease_s=10)).when(claim("a"), later(6), heartbeat("a"))
    story.has("a", lease_until=START_AT + 16).wrote("Claimed", "Heartbeat")


def test_a_heartbeat_with_progress_is_two_facts_on_one_subject() -> None:
    story = given(task("a")).when(claim("a"), heartbeat("a", progress=b"0.5"))
    story.answered(Accept, task_id="a", expected=2).wrote("Claimed", "Progress", "Heartbeat")
    story.has("a", subject_sequence=4)


def test_progress_changes_nothing_but_the_sequence() -> None:
    story = given(task("a", lease_s=10)).when(claim("a"), later(5), progress("a"))
    story.has("a", lease_until=START_AT + 10, subject_sequence=3, sequence=3)


def test_an_expired_lease_that_was_not_taken_over_may_be_renewed_or_completed() -> None:
    given(task("a", lease_s=1)).when(claim("a"), later(9), heartbeat("a")).has(
        "a", lease_until=START_AT + 10
    )
    given(task("a", lease_s=1)).when(claim("a"), later(9), complete("a")).then(a="COMPLETED")


def test_a_plan_says_where_it_stands() -> None:
    story = given(task("a"), task("b")).then(plan="READY")
    story.when(pause).then(plan="PAUSED").when(resume).then(plan="READY")
    story.when(claim("a")).then(plan="RUNNING").when(pause).then(plan="PAUSED")
    story.when(complete("a"), resume).then(plan="RUNNING").when(run("b")).then(plan="COMPLETED")


def test_skipped_tasks_alone_fail_no_plan() -> None:
    story = given(task("a", on_failure="continue"), task("b", after="a", join="any"))
    story.when(break_down("a")).then(b="SKIPPED", plan="COMPLETED")


def test_no_row_of_the_table_stands_twice() -> None:
    assert len({(row.source, row.trigger) for row in TRANSITIONS}) == len(TRANSITIONS)


def test_the_lease_monitor_leaves_leases_alone_that_a_claim_may_take() -> None:
    story = given(task("a", lease_s=1)).when(claim("a"), later(2), expire("a"))
    story.answered(NotAllowed).then(a="RUNNING")
    assert LEASE_EXPIRED == "lease_expired"
