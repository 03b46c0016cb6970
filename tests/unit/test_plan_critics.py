"""Critics: what their verdicts do, when a verdict is stale, and why the loop ends."""

from streams.plan.decisions import Invalid
from streams.plan.events import Completed, Verdict
from tests.unit.plan_story import (
    Step,
    accept,
    break_down,
    claim,
    complete,
    critic,
    every,
    fail,
    given,
    later,
    published,
    reject,
    release,
    retry,
    run,
    task,
)


def judged(critic_id: str, verdict: Step) -> Step:
    """The critic is claimed and says its verdict."""
    return every(claim(critic_id), verdict)


def test_a_critic_must_give_a_verdict_and_a_worker_must_not() -> None:
    story = given(task("a"), critic("c", of="a"))
    story.when(claim("a"), accept("a")).answered(Invalid)
    story.when(complete("a"), claim("c"), complete("c")).answered(Invalid)
    story.then(a="COMPLETED", c="RUNNING")


def test_a_critic_depends_on_its_target() -> None:
    given(task("a"), critic("c", of="a")).then(c="PENDING").when(run("a")).then(c="READY")


def test_a_critic_waits_for_its_target_even_if_its_join_is_satisfied_without() -> None:
    story = given(task("a"), task("x"), critic("c", of="a", after="x a", join="any"))
    story.when(run("x")).then(c="PENDING").when(run("a")).then(c="READY")


def test_dependents_that_are_ready_are_judged_again_and_others_stay() -> None:
    story = given(
        task("a"), critic("c", of="a"), task("idle", after="a"), task("busy", after="a"),
        task("tired", after="a"), task("done", after="a"), task("careful", after="c"),
    )  # fmt: skip
    story.when(run("a"), run("done"), claim("tired"), fail("tired", retry_in_s=0), claim("busy"))
    story.when(judged("c", reject("c")))
    story.then(
        a="REFINING", c="PENDING", idle="PENDING", busy="RUNNING", tired="REFINING",
        done="COMPLETED", careful="PENDING",
    )  # fmt: skip
    story.when(run("a")).then(idle="READY").when(judged("c", accept("c"))).then(careful="READY")


def test_the_reopened_target_is_claimable_at_once_in_the_refining_lane() -> None:
    story = given(task("a"), critic("c", of="a")).when(run("a"), later(4), judged("c", reject("c")))
    story.has("a", claimable_at=story.at).when(claim("a")).then(a="RUNNING").has("a", attempt=2)
    event = story.facts[-1].event
    assert getattr(event, "lane", None) == "refining"


def test_every_critic_of_the_target_judges_the_new_output() -> None:
    names = ("done", "idle", "tired", "busy", "c")
    story = given(task("a"), *(critic(name, of="a") for name in names))
    story.when(run("a"), judged("done", accept("done")), claim("busy"))
    story.when(claim("tired"), fail("tired", retry_in_s=60), judged("c", reject("c")))
    story.then(done="PENDING", idle="PENDING", tired="PENDING", c="PENDING", busy="RUNNING")
    story.when(run("a")).then(done="READY", idle="READY", tired="READY", c="READY", busy="RUNNING")
    # Claimed before the target was reopened: it judged an output that is gone.
    story.when(reject("busy")).then(busy="READY", a="COMPLETED").has("a", retry=1)


def test_a_verdict_about_a_reopened_target_is_stale_whatever_it_says() -> None:
    story = given(task("a"), critic("c", of="a"), critic("d", of="a")).when(run("a"), claim("d"))
    story.when(judged("c", reject("c")), accept("d")).then(a="REFINING", d="PENDING")
    story.when(run("a")).then(d="READY").has("a", retry=1)


def test_a_stale_verdict_said_twice_is_a_duplicate() -> None:
    story = given(task("a"), critic("c", of="a"), critic("d", of="a")).when(run("a"), claim("d"))
    story.when(judged("c", reject("c")), accept("d", by="w1"), accept("d", by="w1")).duplicate()


def test_a_critic_that_is_released_after_its_target_was_reopened_waits_for_it() -> None:
    story = given(task("a"), critic("c", of="a"), critic("d", of="a")).when(run("a"), claim("d"))
    story.when(judged("c", reject("c")), release("d")).then(d="PENDING")
    story.when(run("a")).then(d="READY")


def test_a_critic_that_fails_after_its_target_was_reopened_waits_for_it() -> None:
    story = given(task("a"), critic("c", of="a"), critic("d", of="a")).when(run("a"), claim("d"))
    story.when(judged("c", reject("c")), fail("d", retry_in_s=0))
    story.then(d="PENDING").has("d", retry=1)
    story.when(run("a")).then(d="READY")


def test_a_dependent_released_after_its_dependency_was_reopened_waits_for_it() -> None:
    story = given(task("a"), critic("c", of="a"), task("b", after="a")).when(run("a"), claim("b"))
    story.when(judged("c", reject("c")), release("b")).then(b="PENDING")
    story.when(run("a")).then(b="READY")


def test_when_retries_are_spent_other_critics_stay_and_running_ones_are_stale() -> None:
    story = given(
        task("a", max_retries=0, on_failure="continue"),
        *(critic(name, of="a") for name in ("done", "busy", "c")),
    )
    story.when(run("a"), judged("done", accept("done")), claim("busy"), judged("c", reject("c")))
    story.then(a="FAILED", done="COMPLETED", c="COMPLETED", busy="RUNNING", plan="RUNNING")
    story.when(reject("busy")).then(busy="READY")
    # The target had ended for good before this claim: nothing is left to judge, and no loop.
    story.when(judged("busy", reject("busy"))).then(busy="COMPLETED", a="FAILED", plan="COMPLETED")


def test_failures_and_rejections_share_one_budget() -> None:
    story = given(task("a", max_retries=2), critic("c", of="a"))
    story.when(claim("a"), fail("a", retry_in_s=0), run("a"), judged("c", reject("c")))
    story.then(a="REFINING").has("a", retry=2)
    story.when(run("a"), judged("c", reject("c"))).then(a="FAILED", plan="FAILED")


def test_the_loop_of_rejections_is_bounded_by_the_targets_retries() -> None:
    story = given(task("a", max_retries=3), critic("c", of="a"))
    rounds = 0
    while story.plan.status != "FAILED":
        rounds += 1
        story.when(run("a"), judged("c", reject("c")))
        assert rounds <= 4
    assert rounds == 4
    story.has("a", attempt=4, retry=3)


def test_two_critics_that_reject_in_turn_are_bounded_as_well() -> None:
    story = given(task("a", max_retries=3), critic("c", of="a"), critic("d", of="a"))
    rounds = 0
    while story.plan.status != "FAILED":
        rounds += 1
        story.when(run("a"), judged("c", accept("c")), judged("d", reject("d")))
        assert rounds <= 4
    story.then(a="FAILED", c="COMPLETED", d="COMPLETED")


def test_a_failed_target_that_may_be_gone_on_without_lets_its_critic_pass_without_effect() -> None:
    story = given(task("a", on_failure="continue"), critic("c", of="a")).when(break_down("a"))
    story.then(c="READY").when(judged("c", reject("c"))).then(a="FAILED", c="COMPLETED")
    story.has("a", retry=0)


def test_a_critic_that_fails_follows_its_own_rule() -> None:
    given(task("a"), critic("c", of="a")).when(run("a"), break_down("c")).then(plan="FAILED")
    given(task("a"), critic("c", of="a", on_failure="continue")).when(
        run("a"), break_down("c")
    ).then(plan="COMPLETED")


def test_a_critic_may_judge_a_critic() -> None:
    story = given(task("a"), critic("c", of="a"), critic("cc", of="c"))
    story.when(run("a"), judged("c", accept("c")), judged("cc", reject("cc")))
    story.then(a="COMPLETED", c="REFINING", cc="PENDING")
    story.when(judged("c", accept("c")), judged("cc", accept("cc"))).then(plan="COMPLETED")


def test_a_reject_in_a_failed_plan_ends_in_skipping_until_an_operator_retries() -> None:
    story = given(task("a"), critic("c", of="a"), task("bad")).when(run("a"), claim("c"))
    story.when(break_down("bad"), reject("c", b'"x"')).then(a="SKIPPED", c="SKIPPED")
    story.when(retry("bad")).then(a="READY", c="PENDING").has("a", feedback=b'"x"', retry=1)


def test_a_critics_completion_without_verdict_put_there_by_hand_completes_it() -> None:
    story = given(task("a"), critic("c", of="a")).when(run("a"), claim("c"))
    story.when(published("c", Completed(owner="w1", attempt=1))).then(a="COMPLETED", c="COMPLETED")


def test_a_workers_verdict_put_there_by_hand_rejects_nothing() -> None:
    story = given(task("a"), task("b", after="a")).when(run("a"), claim("b"))
    event = Completed(owner="w1", attempt=1, verdict=Verdict(pass_=False))
    story.when(published("b", event)).then(a="COMPLETED", b="COMPLETED")
