"""The board: what is claimable when, reservations, pauses, and what leaves memory."""

import gc
import weakref

import pytest

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.board.recent import RecentLimits
from streams.plan import commands
from streams.plan.decisions import Accept
from streams.plan.events import Finished, Retried, Submitted
from streams.plan.state import Plan
from tests.unit.board_story import Yard, names
from tests.unit.plan_laws import portrait
from tests.unit.plan_story import critic, task


def test_what_is_ready_is_handed_out_and_what_waits_is_not() -> None:
    place = Yard()
    place.submit("p", task("a"), task("b", after="a"), critic("c", of="a"))
    first = place.claim(10)
    assert names(first) == ["a"]
    assert place.pick(10) == []
    place.complete(*first)
    assert names(place.pick(10)) == ["b", "c"]


def test_what_was_picked_is_not_picked_again() -> None:
    place = Yard()
    place.submit("p", *(task(f"t{n}") for n in range(10)))
    first, second = place.pick(6), place.pick(6)
    assert len(first) == 6
    assert len(second) == 4
    assert not set(names(first)) & set(names(second))
    assert place.pick(6) == []


def test_what_is_given_back_is_handed_out_again_in_its_old_place() -> None:
    place = Yard()
    place.submit("p", task("a"))
    place.later(1)
    place.submit("q", task("b"))
    (pick,) = place.pick(1)
    place.later(1)
    place.board.places.give_back(pick.seat, place.at)
    assert names(place.pick(10)) == ["a", "b"]


def test_giving_back_twice_hands_it_out_once() -> None:
    place = Yard()
    place.submit("p", task("a"))
    (pick,) = place.pick(1)
    place.board.places.give_back(pick.seat, place.at)
    place.board.places.give_back(pick.seat, place.at)
    assert names(place.pick(10)) == ["a"]


def test_giving_back_what_was_claimed_meanwhile_does_nothing() -> None:
    place = Yard(boards=2)
    place.submit("p", task("a"))
    (pick,) = place.pick(1, board=0)
    assert names(place.claim(1, board=1)) == ["a"]
    place.boards[0].places.give_back(pick.seat, place.at)
    assert place.pick(1, board=0) == []
    assert place.board.places.claimable == 0


def test_a_reservation_survives_a_fact_that_leaves_the_task_claimable() -> None:
    place = Yard()
    place.submit("p", task("a"), task("b"))
    place.pick(1)
    place.say(commands.Pause(plan_id="nobody"))
    place.spoil("other")
    assert names(place.pick(10)) == ["b"]


def test_a_paused_plan_hands_out_nothing_and_comes_back_in_its_old_order() -> None:
    place = Yard()
    place.submit("p", task("a"), task("b"), task("x", priority=3))
    place.later(1)
    place.submit("q", task("c"))
    place.later(1)
    place.say(commands.Pause(plan_id="p"))
    assert names(place.pick(1)) == ["c"]
    assert place.pick(10) == []
    place.submit("r", task("d"))
    place.later(1)
    place.say(commands.Resume(plan_id="p"))
    assert names(place.pick(10)) == ["x", "d", "a", "b"], "in its order; plans take turns"


def test_a_task_that_gets_ready_while_its_plan_is_paused_waits_for_the_resume() -> None:
    place = Yard()
    place.submit("p", task("a"), task("b", after="a"))
    picks = place.claim(1)
    place.say(commands.Pause(plan_id="p"))
    place.complete(*picks)
    assert place.pick(10) == []
    place.say(commands.Resume(plan_id="p"))
    assert names(place.pick(10)) == ["b"]


def test_a_failed_plan_hands_out_nothing_not_even_expired_leases() -> None:
    place = Yard()
    place.submit("p", task("a", lease_s=1), task("bad"), task("c"))
    picks = place.claim(2)
    place.own(commands.Fail, picks[1], error_type="x", retryable=False)
    place.later(2)
    assert place.pick(10) == []
    assert [item.spec.id for _, item in place.board.places.expired()] == ["a"]


def test_a_retry_delay_is_waited_for() -> None:
    place = Yard()
    place.submit("p", task("a"))
    place.own(commands.Fail, place.claim(1)[0], error_type="x", retry_in_s=5)
    assert place.board.places.next_due() == place.at + 5
    place.later(4.9)
    assert place.pick(1) == []
    place.later(0.1)
    (pick,) = place.pick(1)
    assert pick.seat.lane == "refining"


def test_an_expired_lease_is_claimable_unless_it_is_renewed() -> None:
    place = Yard()
    place.submit("p", task("a", lease_s=10))
    first = place.claim(1)
    place.later(10)
    place.board.places.advance(place.at)
    assert place.board.places.claimable == 1
    place.own(commands.Heartbeat, first[0])
    assert place.pick(1) == []
    assert place.board.places.expired() == []
    place.later(10)
    assert names(place.claim(1)) == ["a"]
    assert first[0].seat.task.attempt == 2


def test_spent_lost_leases_are_not_handed_out_but_shown_to_the_monitor() -> None:
    place = Yard()
    place.submit("p", task("a", lease_s=1, max_lost_leases=0))
    place.claim(1)
    place.later(1)
    assert place.pick(1) == []
    assert len(place.board.places.expired()) == 1
    assert isinstance(place.say(commands.Expire(plan_id="p", task_id="a")), Accept)
    assert place.board.places.expired() == []


def test_the_backlog_counts_per_lane_with_the_age_of_the_oldest() -> None:
    place = Yard()
    place.submit("p", task("a"))
    place.own(commands.Fail, place.claim(1)[0], error_type="x", retry_in_s=0)
    place.later(3)
    place.submit("q", task("b"), task("c"))
    assert place.board.places.backlog() == {"ready": (2, place.at), "refining": (1, place.at - 3)}
    place.claim(10)
    assert place.board.places.backlog() == {"ready": (0, None), "refining": (0, None)}


# -- unreadable messages ------------------------------------------------------------------------


@pytest.mark.parametrize("spoilt", [None, "a"])
def test_nothing_is_handed_out_on_top_of_an_unreadable_fact(spoilt: str | None) -> None:
    place = Yard()
    place.submit("p", task("a"))
    place.submit("q", task("b"))
    place.spoil("p", spoilt)
    assert place.board.bad_facts == 1
    assert names(place.pick(10)) == ["b"]
    place.later(100)
    assert place.pick(10) == []


def test_a_plan_put_there_by_hand_that_makes_no_sense_is_ignored() -> None:
    place = Yard()
    place.write("p", None, Submitted(tasks=(task("a", after="ghost"),)))
    place.write("q", None, Submitted(tasks=(task("c", type="critic", target="ghost"),)))
    assert list(place.board.ignored) == [1, 2]
    assert "ghost" in place.board.ignored[1]
    assert place.board.plans == {}


def test_a_fact_about_nothing_is_ignored() -> None:
    place = Yard()
    place.write("nobody", None, Finished(status="COMPLETED"))
    place.write("nobody", "a", Retried(task_id="a"))
    assert list(place.board.ignored) == [1, 2]


# -- memory -------------------------------------------------------------------------------------


def finished_plan(place: Yard, plan_id: str, tasks: int = 3, lease_s: float = 3_600) -> None:
    place.submit(plan_id, *(task(f"t{n}", kind=plan_id, lease_s=lease_s) for n in range(tasks)))
    picks = place.claim(tasks)
    for pick in picks:
        place.own(commands.Heartbeat, pick)
    place.complete(*picks)
    place.finish(plan_id)


@pytest.mark.parametrize(
    "recent", [RecentLimits(tasks=6), RecentLimits(bytes=10_000)], ids=["tasks", "bytes"]
)
def test_finished_plans_leave_memory(recent: RecentLimits) -> None:
    place = Yard(recent=recent)
    finished_plan(place, "first")
    before = plans_alive()
    for n in range(20):
        finished_plan(place, f"p{n}")
    assert place.board.plans == {}
    assert len(place.board.recent) <= 2
    assert place.board.places.claimable == 0
    assert plans_alive() <= before + 2


def test_a_cancelled_plan_leaves_memory_although_better_ones_stand_before_it() -> None:
    place = Yard(recent=RecentLimits(tasks=1))
    place.submit("vip", task("vip"), priority=100)
    before = plans_alive()
    for n in range(300):
        place.submit(f"p{n}", task("a"), task("b"))
        place.say(commands.Cancel(plan_id=f"p{n}"))
        place.finish(f"p{n}")
    assert plans_alive() <= before + 100
    assert names(place.pick(10)) == ["vip"]


def plans_alive() -> int:
    gc.collect()
    return sum(isinstance(thing, Plan) for thing in gc.get_objects())


def test_boards_themselves_leave_memory() -> None:
    board = Board(SharingRule(), "x")
    gone = weakref.ref(board)
    del board
    gc.collect()
    assert gone() is None


def test_a_finished_plan_is_known_for_a_while_and_wakes_up_for_a_retry() -> None:
    place = Yard()
    plan = place.submit("p", task("a"), task("b", after="a"))
    place.own(commands.Fail, place.claim(1)[0], error_type="x", retryable=False)
    assert place.board.finishable == {"p"}
    place.finish("p")
    assert place.board.finishable == set()
    assert place.board.plans == {}
    assert place.board.knows("p") is plan
    place.say(commands.Retry(plan_id="p", task_id="a"))
    assert list(place.board.plans) == ["p"]
    assert names(place.pick(10)) == ["a"]


def test_a_straggler_does_not_keep_a_finished_plan_among_the_unfinished() -> None:
    place = Yard()
    place.submit("p", task("a"))
    picks = place.claim(1)
    place.complete(*picks)
    place.finish("p")
    place.write("p", "a", Finished(status="COMPLETED"))
    assert place.board.plans == {}
    assert place.board.knows("p") is not None


def test_a_plan_that_can_finish_is_watched_until_it_does() -> None:
    place = Yard()
    place.submit("p", task("a"))
    place.complete(*place.claim(1))
    assert place.board.finishable == {"p"}
    place.finish("p")
    assert place.board.finishable == set()


# -- starting again -----------------------------------------------------------------------------


def test_restored_plans_are_placed_as_if_they_had_been_folded() -> None:
    place = Yard()
    place.submit(
        "p", task("ready"), task("late"), task("held", lease_s=50), task("gone", lease_s=1)
    )
    held = {pick.seat.task.spec.id: pick for pick in place.claim(10)}
    place.own(commands.Release, held["ready"])
    place.own(commands.Fail, held["late"], error_type="x", retry_in_s=20)
    place.later(2)
    fresh = Board(SharingRule(), "fresh")
    fresh.restore([place.plan("p")], place.board.sequence, place.at)
    assert fresh.sequence == place.board.sequence
    assert sorted(names(fresh.places.pick(10, None, place.at))) == ["gone", "ready"]
    assert names(fresh.places.pick(10, None, place.at + 20)) == ["late"]
    assert names(fresh.places.pick(10, None, place.at + 50)) == ["held"]


def test_a_board_folded_from_the_beginning_equals_the_one_that_lived() -> None:
    place = Yard()
    place.submit("p", task("a"), task("b", after="a"), critic("c", of="b"))
    for _ in range(3):
        place.complete(*(pick for pick in place.claim(10) if pick.seat.task.spec.type == "worker"))
    again = Board(SharingRule(), "again")
    place.fold([again])
    assert portrait(again.plans["p"]) == portrait(place.plan("p"))
