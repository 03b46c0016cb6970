"""Pause, resume, cancel, retry and finish: once, twice, and where they are forbidden."""

import pytest

from streams.plan.decisions import Accept, NotAllowed, NotFound, PlanExists
from streams.plan.events import Claimed, Finished, Retried
from tests.unit.plan_story import (
    Step,
    Story,
    break_down,
    cancel,
    claim,
    complete,
    critic,
    fail,
    finish,
    given,
    heartbeat,
    later,
    pause,
    published,
    reject,
    release,
    resubmitted,
    resume,
    retry,
    retry_all,
    run,
    task,
)


def test_a_paused_plan_hands_out_nothing_and_lets_running_tasks_end() -> None:
    story = given(task("a"), task("b"), task("c", after="a")).when(claim("a"), pause)
    story.when(claim("b")).answered(NotAllowed, status="PAUSED")
    story.when(heartbeat("a"), complete("a")).then(a="COMPLETED", c="READY", plan="PAUSED")
    story.when(resume, run("b"), run("c")).then(plan="COMPLETED")


def test_a_paused_plan_does_not_give_its_expired_leases_to_others() -> None:
    story = given(task("a", lease_s=1)).when(claim("a"), pause, later(2), claim("a"))
    story.answered(NotAllowed, status="PAUSED")


def test_a_paused_plan_whose_last_task_ends_is_completed() -> None:
    story = given(task("a")).when(claim("a"), pause, complete("a")).then(plan="COMPLETED")
    story.when(finish).answered(Accept).wrote("Completed", "Finished")


def test_a_claim_that_lost_its_race_against_a_pause_does_not_count() -> None:
    story = given(task("a"), task("b")).when(pause)
    story.when(published("a", Claimed(owner="w1", attempt=1, lease_s=9)))
    story.then(a="READY", plan="PAUSED").has("a", attempt=0, subject_sequence=3)
    assert 3 in story.ignored


@pytest.mark.parametrize(("step", "status"), [(pause, "PAUSED"), (cancel, "CANCELLED")])
def test_repeating_pause_and_cancel_is_no_error(step: Step, status: str) -> None:
    story = given(task("a")).when(step).answered(Accept).when(step).duplicate()
    assert len(story.facts) == 2
    story.then(plan=status)


def test_repeating_resume_is_no_error() -> None:
    story = given(task("a")).when(resume).duplicate()
    story.when(pause, resume).answered(Accept).when(resume).duplicate()
    story.wrote("Submitted", "Paused", "Resumed")


def completed() -> Story:
    return given(task("a")).when(run("a"))


def failed() -> Story:
    return given(task("a")).when(break_down("a"))


def cancelled() -> Story:
    return given(task("a")).when(cancel)


@pytest.mark.parametrize("step", [pause, resume])
@pytest.mark.parametrize("story", [completed, failed, cancelled])
def test_what_has_ended_is_neither_paused_nor_resumed(story: type[Story], step: Step) -> None:
    story().when(step).answered(NotAllowed)


@pytest.mark.parametrize("closed", [False, True])
def test_a_completed_plan_is_not_cancelled(closed: bool) -> None:  # noqa: FBT001
    story = completed().when(*([finish] if closed else []))
    story.when(cancel).answered(NotAllowed, status="COMPLETED")


def test_a_failed_plan_may_be_cancelled_while_something_runs_but_not_once_finished() -> None:
    story = given(task("a"), task("b")).when(claim("b"), break_down("a")).then(plan="FAILED")
    story.when(cancel).answered(Accept).then(plan="CANCELLED", a="FAILED", b="CANCELLED")
    failed().when(finish, cancel).answered(NotAllowed, status="FAILED")


def test_a_cancel_that_lost_its_race_against_the_last_completion_does_not_count() -> None:
    from streams.plan.events import Cancelled  # noqa: PLC0415

    story = completed().when(published(None, Cancelled())).then(plan="COMPLETED")
    assert story.ignored
    assert story.plan.subject_sequence == story.sequence


def test_finished_waits_until_nothing_runs_any_more() -> None:
    story = given(task("a"), task("b")).when(claim("b"), break_down("a"))
    story.when(finish).answered(NotAllowed)
    assert not story.plan.can_finish
    story.when(complete("b"))
    assert story.plan.can_finish
    story.when(later(1), finish).answered(Accept)
    assert story.facts[-1].event == Finished(status="FAILED")
    assert story.plan.finished_at == story.at
    assert not story.plan.can_finish


def test_finished_is_appended_once_per_run() -> None:
    story = failed().when(finish, finish).duplicate().wrote("Failed", "Finished")
    story.when(retry("a")).then(plan="RUNNING")
    assert story.plan.finished_at is None
    story.when(finish).answered(NotAllowed, status="RUNNING")
    story.when(run("a"), finish).answered(Accept).when(finish).duplicate()
    story.wrote("Finished", "Retried", "Claimed", "Completed", "Finished")


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED"])
def test_a_premature_or_wrong_finished_is_ignored(status: str) -> None:
    event = Finished(status=status)  # type: ignore[arg-type]
    story = given(task("a")).when(published(None, event)).then(plan="READY")
    assert story.plan.finished_at is None
    if status != "COMPLETED":
        story.when(run("a"), published(None, event))
        assert story.plan.finished_at is None


@pytest.mark.parametrize("story", [completed, cancelled])
def test_only_a_failed_task_is_retried(story: type[Story]) -> None:
    story().when(retry("a")).answered(NotAllowed)


def test_a_retry_repeated_is_refused_and_one_of_nothing_is_not_found() -> None:
    story = failed().when(retry("a"), retry("a")).answered(NotAllowed, status="READY")
    story.when(retry("nobody")).answered(NotFound)


def test_a_cancelled_plan_retries_nothing() -> None:
    given(task("a"), task("b")).when(break_down("a"), cancel, retry("a")).answered(NotAllowed)


def test_a_retry_judges_every_skipped_task_again() -> None:
    story = given(
        task("a"), task("b", after="a"), task("c", after="b"), task("free"),
        task("tried"), task("x", on_failure="continue"), task("vain", after="x", join="any"),
    )  # fmt: skip
    story.when(break_down("x"), claim("tried"), fail("tried", retry_in_s=0), break_down("a"))
    story.then(b="SKIPPED", c="SKIPPED", free="SKIPPED", tried="SKIPPED", vain="SKIPPED")
    story.when(retry("a")).then(a="READY", b="PENDING", c="PENDING", free="READY", tried="READY")
    # Its only dependency is still FAILED, so it is judged as before.
    story.then(vain="SKIPPED", plan="RUNNING").when(retry("x")).then(x="READY", vain="PENDING")


def test_with_two_failed_tasks_the_plan_goes_on_when_both_are_retried() -> None:
    story = given(task("a"), task("b"), task("c", after="a b")).when(claim("b"))
    story.when(break_down("a"), fail("b", retryable=False), finish)
    story.when(retry("a")).then(plan="RUNNING", a="READY", b="FAILED", c="SKIPPED")
    story.when(retry("b")).then(plan="RUNNING", a="READY", b="READY", c="PENDING")
    story.when(run("a"), run("b"), run("c")).then(plan="COMPLETED")


def two_failed() -> Story:
    story = given(task("a"), task("b"), task("free"), task("c", after="a b")).when(claim("b"))
    return story.when(break_down("a"), fail("b", retryable=False), finish)


def test_a_retry_of_one_of_two_failed_tasks_runs_it_and_the_plan_stays_failed_in_the_end() -> None:
    story = two_failed().when(retry("a")).answered(Accept)
    story.then(a="READY", b="FAILED", free="READY", c="SKIPPED", plan="RUNNING")
    story.when(finish).answered(NotAllowed)
    story.when(run("a"), run("free")).then(plan="FAILED").when(finish).answered(Accept)
    assert story.facts[-1].event == Finished(status="FAILED")
    story.wrote("Finished", "Retried", "Claimed", "Completed", "Claimed", "Completed", "Finished")


def test_a_task_that_fails_after_a_retry_stops_the_plan_again() -> None:
    story = two_failed().when(retry("a"), break_down("a"))
    story.then(a="FAILED", free="SKIPPED", plan="FAILED").when(finish).answered(Accept)


def test_a_retry_of_a_plan_retries_all_its_failed_tasks() -> None:
    story = two_failed().when(retry_all).wrote("Finished", "Retried")
    story.then(a="READY", b="READY", free="READY", c="PENDING", plan="RUNNING")
    story.when(run("a"), run("b"), run("free"), run("c"), finish).then(plan="COMPLETED")
    story.when(retry_all).answered(NotAllowed, status="COMPLETED")
    given(task("a"), task("b")).when(break_down("a"), cancel, retry_all).answered(NotAllowed)


def test_a_retry_written_by_an_earlier_version_is_folded_as_it_was_then() -> None:
    story = two_failed().when(published(None, Retried(task_id="a")))
    story.then(a="SKIPPED", b="FAILED", plan="FAILED")
    story.when(published(None, Retried(task_id="b"))).then(a="READY", b="READY", plan="RUNNING")


@pytest.mark.parametrize("also", [("nobody",), ("b", "free")])
def test_a_retry_of_several_tasks_counts_only_if_all_of_them_have_failed(
    also: tuple[str, ...],
) -> None:
    story = two_failed().when(published(None, Retried(task_id="a", also=also)))
    assert story.ignored
    story.then(a="FAILED", b="FAILED")


def test_a_retry_takes_back_what_went_on_without_the_task() -> None:
    story = given(task("a", on_failure="continue"), task("b", after="a"))
    story.when(break_down("a")).then(b="READY").when(retry("a")).then(a="READY", b="PENDING")


def test_a_retry_reopens_the_critics_of_the_task() -> None:
    story = given(task("a", max_retries=0), critic("c", of="a"))
    story.when(run("a"), claim("c"), reject("c")).then(a="FAILED", c="COMPLETED")
    story.when(finish, retry("a")).then(a="READY", c="PENDING")
    story.when(run("a")).then(c="READY")


def test_a_paused_plan_that_failed_is_still_paused_after_a_retry() -> None:
    story = given(task("a")).when(claim("a"), pause, fail("a", retryable=False))
    story.then(plan="FAILED").when(retry("a")).then(plan="PAUSED", a="READY")
    story.when(resume).then(plan="RUNNING")


def test_a_failed_plan_that_releases_skips_the_task() -> None:
    story = given(task("a"), task("b")).when(claim("b"), break_down("a"), release("b"))
    story.then(b="SKIPPED", plan="FAILED")


def test_submitting_the_same_plan_again_is_a_duplicate_however_it_is_spelled() -> None:
    story = given(task("a", input=b'{"x": 1, "y": 2}'), name="n", labels={"k": "v"})
    resubmitted(story)
    story.duplicate()
    resubmitted(story, tasks=(task("a", input=b'{"y":2,"x":1}'),))
    story.duplicate()
    assert len(story.facts) == 1


def test_a_different_plan_under_a_taken_id_is_refused() -> None:
    story = given(task("a"), name="n")
    resubmitted(story, name="other")
    story.answered(PlanExists)
    resubmitted(story, tasks=(task("a", priority=1),))
    story.answered(PlanExists)


def test_an_implicit_critic_target_is_the_same_plan_as_the_explicit_one() -> None:
    story = given(task("a"), critic("c", of="a"))
    resubmitted(story, tasks=(task("a"), task("c", after="a", type="critic")))
    story.duplicate()
