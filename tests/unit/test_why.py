"""Why a task or a plan does not run: a situation made on purpose for each code, and near misses."""

from collections import Counter
from typing import Any

import pytest
from msgspec import Raw

from service.core.why import Reason, Surroundings, Why, why_plan, why_task
from streams.plan import commands
from streams.plan.events import Verdict
from tests.unit.board_story import Yard
from tests.unit.plan_story import critic, task


class Place(Yard):
    """A yard that is asked why; ``asked`` says when workers asked for a kind."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, float] = {}
        self.known: list[str] = ["echo", "search"]

    def around(self) -> Surroundings:
        self.board.places.advance(self.at)
        live = Counter(self.board.places.running_kinds)
        live.subtract(each.spec.kind for _, each in self.board.places.expired())
        return Surroundings(
            now=self.at,
            asked=self.asked.get,
            known_kinds=self.known,
            running=live,
            standing=self.board.places.standing,
        )

    def why(self, task_id: str, plan_id: str = "p") -> Why:
        plan = self.plan(plan_id)
        return why_task(plan, plan.tasks[task_id], self.around())

    def codes(self, task_id: str, plan_id: str = "p") -> list[str]:
        return [reason.code for reason in self.why(task_id, plan_id).reasons]

    def reason(self, task_id: str, code: str) -> Reason:
        return next(each for each in self.why(task_id).reasons if each.code == code)

    def workers_ask(self, *kinds: str) -> None:
        self.asked |= dict.fromkeys(kinds, self.at)

    def ended(self, task_id: str, **fields: Any) -> None:
        """Claim the one task that is claimable, and fail it for good."""
        (pick,) = self.claim(1)
        assert pick.seat.task.spec.id == task_id
        self.own(commands.Fail, pick, error_type="boom", retryable=False, **fields)


def test_a_task_waits_for_its_dependency() -> None:
    place = Place()
    place.submit("p", task("a"), task("b", after="a"))
    reason = place.reason("b", "dependency_pending")
    assert reason.evidence["waits_for"] == [{"task_id": "a", "status": "READY", "sequence": 1}]
    assert reason.evidence["sequences"] == [1]
    assert place.why("b").answer == "Task 'b' waits for 'a' (READY)."


def test_many_dependencies_are_counted_and_few_are_named() -> None:
    place = Place()
    place.submit(
        "p",
        *(task(f"t{n}") for n in range(30)),
        task("z", after=" ".join(f"t{n}" for n in range(30))),
    )
    reason = place.reason("z", "dependency_pending")
    assert (reason.evidence["pending"], len(reason.evidence["waits_for"])) == (30, 5)
    assert "and 25 more" in reason.says


@pytest.mark.parametrize(("join", "quorum", "needed"), [("any", None, 1), ("quorum", 2, 2)])
def test_a_join_says_how_many_it_needs(join: str, quorum: int | None, needed: int) -> None:
    place = Place()
    place.submit(
        "p", task("a"), task("b"), task("c"), task("z", after="a b c", join=join, quorum=quorum)
    )
    reason = place.reason("z", "join_waits")
    assert (reason.evidence["needed"], reason.evidence["completed"]) == (needed, 0)
    place.workers_ask("echo")
    place.complete(*place.claim(needed))
    assert place.codes("z") == ["next_in_lane"] or place.codes("z") == ["lane_behind"]


def test_a_kind_that_no_worker_asks_for_is_named_with_the_likely_one() -> None:
    place = Place()
    place.submit("p", task("a", kind="ecko"))
    place.workers_ask("echo")
    reason = place.reason("a", "no_worker")
    assert reason.evidence["did_you_mean"] == "echo"
    assert reason.says == (
        "waits because no worker has asked for kind 'ecko'; did you mean 'echo'?"
    )


def test_a_worker_that_asked_a_moment_ago_is_no_missing_worker() -> None:
    place = Place()
    place.submit("p", task("a"))
    place.workers_ask("echo")
    place.later(9.9)
    assert place.codes("a") == ["next_in_lane"]
    place.later(0.2)
    assert place.codes("a") == ["no_worker"]
    assert "for 10 s" in place.why("a").answer


def test_workers_that_are_all_busy_are_no_missing_workers() -> None:
    place = Place()
    place.submit("p", task("a"), task("b"))
    place.claim(1)
    place.later(11)
    place.asked["echo"] = place.at - 11
    assert place.codes("b") == ["workers_busy"]
    assert place.reason("b", "workers_busy").evidence["running"] == 1


def test_a_dead_worker_is_not_a_busy_one() -> None:
    place = Place()
    place.submit("p", task("a", lease_s=5), task("b"))
    place.claim(1)
    place.later(20)
    assert place.codes("b") == ["no_worker"]


def test_a_task_behind_others_says_how_many() -> None:
    place = Place()
    place.submit("p", *(task(f"t{n}") for n in range(10)))
    place.workers_ask("echo")
    reason = place.reason("t7", "lane_behind")
    assert (reason.evidence["ahead"], reason.evidence["claimable"]) == (7, 10)
    assert place.codes("t0") == ["next_in_lane"]


def test_plans_take_turns_so_a_second_plan_is_not_behind_the_whole_first() -> None:
    place = Place()
    place.submit("p", *(task(f"t{n}") for n in range(100)))
    place.later(1)
    place.submit("q", task("x"))
    place.workers_ask("echo")
    reason = place.why("x", "q").reasons[0]
    assert (reason.code, reason.evidence["ahead"]) == ("lane_behind", 1)
    order = [pick.seat.task.spec.id for pick in place.pick(3)]
    assert order.index("x") == 1  # as it said


def test_a_task_that_is_being_claimed_is_reserved() -> None:
    place = Place()
    place.submit("p", task("a"))
    place.pick(1)
    assert place.codes("a") == ["reserved"]


def test_a_retry_waits_with_its_error_and_its_time() -> None:
    place = Place()
    place.submit("p", task("a"))
    (pick,) = place.claim(1)
    place.own(commands.Fail, pick, error_type="boom", error_message="no", retry_in_s=30)
    reason = place.reason("a", "retry_delay")
    assert (reason.evidence["left_s"], reason.evidence["error_type"]) == (30, "boom")
    assert (reason.evidence["retry"], reason.evidence["max_retries"]) == (1, 3)
    place.later(31)
    place.workers_ask("echo")
    assert place.codes("a") == ["next_in_lane"]


def test_a_snoozed_task_waits_without_an_error() -> None:
    place = Place()
    place.submit("p", task("a"))
    (pick,) = place.claim(1)
    place.own(commands.Release, pick, reason="later", retry_in_s=20)
    assert place.codes("a") == ["delay"]


def test_a_held_lease_names_its_owner_and_the_last_sign_of_life() -> None:
    place = Place()
    place.submit("p", task("a", lease_s=15))
    (pick,) = place.claim(1)
    place.later(10)
    place.own(commands.Heartbeat, pick)
    place.later(4)
    reason = place.reason("a", "lease_held")
    assert (reason.evidence["owner"], reason.evidence["attempt"]) == ("w-a", 1)
    assert reason.evidence["sequences"] == [2, 3]
    assert "gave a sign of life 4.0 s ago" in reason.says
    assert "take the task over in 11.0 s" in reason.next


def test_an_expired_lease_says_what_keeps_others_away() -> None:
    place = Place()
    place.submit("p", task("a", lease_s=5))
    place.claim(1)
    place.later(4.9)
    assert place.codes("a") == ["lease_held"]
    place.later(1)
    assert place.codes("a") == ["lease_expired_unclaimed", "no_worker"]
    place.workers_ask("echo")
    assert place.codes("a") == ["lease_expired_unclaimed", "next_in_lane"]


def test_an_expired_lease_whose_budget_is_spent_is_ended_by_housekeeping() -> None:
    place = Place()
    place.submit("p", task("a", lease_s=5, max_lost_leases=0))
    place.claim(1)
    place.later(6)
    assert place.codes("a") == ["lease_expired_unclaimed"]
    assert "fails it as 'lease_expired'" in place.why("a").reasons[0].next


def test_a_paused_plan_comes_first() -> None:
    place = Place()
    place.submit("p", task("a"), task("b", after="a"))
    place.say(commands.Pause(plan_id="p", reason="lunch"))
    reason = place.reason("a", "plan_paused")
    assert reason.evidence["sequences"] == [2]
    assert place.codes("a") == ["plan_paused"]
    assert place.codes("b") == ["plan_paused", "dependency_pending"]
    place.say(commands.Resume(plan_id="p"))
    place.workers_ask("echo")
    assert place.codes("a") == ["next_in_lane"]


def test_a_task_that_runs_in_a_failed_plan_is_asked_to_stop() -> None:
    place = Place()
    place.submit("p", task("a"), task("b"))
    first, _ = place.claim(2)
    place.own(commands.Fail, first, error_type="boom", retryable=False)
    other = "b" if first.seat.task.spec.id == "a" else "a"
    assert place.codes(other) == ["lease_held", "plan_failed"]
    assert "asked to stop" in place.why(other).answer


def test_a_skipped_task_names_the_culprit() -> None:
    place = Place()
    place.submit("p", task("a"), task("b", after="a"))
    place.ended("a")
    reason = place.reason("b", "ended")
    assert reason.says == "was SKIPPED: 'a' is FAILED."
    assert reason.evidence["because_of"][0]["task_id"] == "a"


def test_a_failed_task_shows_its_error() -> None:
    place = Place()
    place.submit("p", task("a"))
    place.ended("a", error_message="x" * 1_000)
    answer = place.why("a").answer
    assert answer.startswith("Task 'a' has FAILED after one attempt: boom: xxx")
    assert len(answer) < 300


def test_completed_and_cancelled_tasks_have_ended() -> None:
    place = Place()
    place.submit("p", task("a"), task("b"))
    place.complete(*place.claim(1))
    place.say(commands.Cancel(plan_id="p"))
    statuses = {place.reason(each, "ended").evidence["status"] for each in ("a", "b")}
    assert statuses == {"COMPLETED", "CANCELLED"}


def test_a_critic_whose_target_is_worked_on_again_has_a_stale_verdict() -> None:
    place = Place()
    place.submit("p", task("a"), critic("c", of="a"))
    place.complete(*place.claim(1))
    (pick,) = place.claim(1)
    assert pick.seat.task.spec.id == "c"
    again = Verdict(pass_=False, feedback=Raw(b'"again"'))
    place.own(commands.Complete, pick, output=Raw(b"1"), verdict=again)
    assert place.codes("c") == ["verdict_stale", "dependency_pending"]
    assert place.reason("c", "verdict_stale").evidence["target"]["task_id"] == "a"


def test_a_critic_that_has_not_judged_yet_has_no_stale_verdict() -> None:
    place = Place()
    place.submit("p", task("a"), critic("c", of="a"))
    assert place.codes("c") == ["dependency_pending"]


def test_an_unreadable_fact_is_named_by_its_sequence() -> None:
    place = Place()
    place.submit("p", task("a"), task("b"))
    place.spoil("p", "a")
    assert place.codes("a") == ["unreadable_fact"]
    assert place.reason("a", "unreadable_fact").evidence["sequences"] == [2]
    place.workers_ask("echo")
    assert place.codes("b") == ["next_in_lane"]


# -- plans ------------------------------------------------------------------------------------


def test_a_plan_says_what_an_operator_must_know_first_and_counts_the_rest() -> None:
    place = Place()
    place.submit(
        "p",
        *(task(f"e{n}") for n in range(3)),
        task("odd", kind="ecko"),
        task("z", after="odd"),
    )
    place.workers_ask("echo")
    place.claim(1, ("echo",))
    why = why_plan(place.plan("p"), place.around())
    assert [each.code for each in why.reasons] == [
        "no_worker",
        "lease_held",
        "next_in_lane",
        "dependency_pending",
    ]
    assert "task 'odd' waits because no worker has asked for kind 'ecko'" in why.answer
    waiting = why.reasons[2].evidence
    assert (waiting["tasks"], waiting["examples"]) == (2, ["e1", "e2"])


def test_a_plan_that_ended_says_how() -> None:
    place = Place()
    place.submit("p", task("a"))
    place.ended("a")
    place.finish("p")
    why = why_plan(place.plan("p"), place.around())
    assert why.answer == "Plan 'p' has ended as FAILED because 'a' failed."
    assert why.reasons[0].evidence["failed"][0]["error_type"] == "boom"


def test_a_paused_plan_is_the_reason() -> None:
    place = Place()
    place.submit("p", task("a"))
    place.say(commands.Pause(plan_id="p"))
    why = why_plan(place.plan("p"), place.around())
    assert [each.code for each in why.reasons] == ["plan_paused"]
