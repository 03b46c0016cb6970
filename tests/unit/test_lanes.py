"""How free slots are shared between the lanes, and who comes first in each."""

from typing import Any

import pytest

from projections.board.lanes import SharingRule
from streams.plan import commands
from tests.unit.board_story import Yard, names
from tests.unit.plan_story import task


def yard(ready: int, refining: int, **rule: Any) -> Yard:
    """A yard with that many claimable tasks per lane: r0, r1 and f0, f1 and so on."""
    place = Yard(**rule)
    place.submit("fine", *(task(f"f{n}") for n in range(refining)), task("spare"))
    while picks := place.claim(1):
        if names(picks) != ["spare"]:
            place.own(commands.Fail, picks[0], error_type="x", retry_in_s=5)
    place.later(5)
    place.submit("new", *(task(f"r{n}") for n in range(ready)))
    return place


def claimed(place: Yard, limit: int) -> tuple[int, int, int, int]:
    """How many of each lane, and how many of each lane's were fallback."""
    picks = place.pick(limit)
    ready = [pick for pick in picks if pick.seat.lane == "ready"]
    refining = [pick for pick in picks if pick.seat.lane == "refining"]
    return (
        len(ready),
        len(refining),
        sum(pick.fallback for pick in ready),
        sum(pick.fallback for pick in refining),
    )


@pytest.mark.parametrize(
    ("limit", "ratio", "minimum", "ready", "refining"),
    [
        (10, 0.3, 1, 7, 3),  # the defaults
        (9, 0.3, 1, 7, 2),  # floor(2.7)
        (3, 0.3, 1, 2, 1),  # floor(0.9) is 0, the minimum is 1
        (2, 0.3, 1, 1, 1),
        (2, 0.3, 5, 0, 2),  # the minimum is at most the limit
        (10, 0.0, 0, 10, 0),
        (10, 1.0, 0, 0, 10),
        (10, 0.0, 4, 6, 4),
        (100, 0.29, 0, 71, 29),  # 100 times 0.29 is 28.999… in floating point
        (0, 0.3, 1, 0, 0),
    ],
)
def test_the_refining_lane_is_offered_its_share(
    limit: int, ratio: float, minimum: int, ready: int, refining: int
) -> None:
    rule = SharingRule(refining_max_ratio=ratio, refining_min_per_tick=minimum)
    share = rule.share(limit)
    assert (share.ready, share.refining) == (ready, refining)


def test_a_single_slot_goes_to_the_ready_lane_if_it_goes_first() -> None:
    assert SharingRule(ready_first=True).share(1).ready == 1
    assert SharingRule(ready_first=False).share(1).refining == 1


def test_full_lanes_get_exactly_their_share() -> None:
    assert claimed(yard(20, 20), 10) == (7, 3, 0, 0)


def test_what_refining_cannot_fill_falls_to_ready_as_its_fallback() -> None:
    assert claimed(yard(20, 1), 10) == (9, 1, 2, 0)


def test_what_ready_cannot_fill_falls_to_refining_as_its_fallback() -> None:
    assert claimed(yard(4, 20), 10) == (4, 6, 0, 3)


def test_empty_lanes_leave_slots_free() -> None:
    assert claimed(yard(2, 1), 10) == (2, 1, 0, 0)


def test_a_single_slot_falls_to_refining_when_nothing_is_ready() -> None:
    assert claimed(yard(0, 2), 1) == (0, 1, 0, 1)
    assert claimed(yard(2, 2), 1) == (1, 0, 0, 0)
    assert claimed(yard(2, 2, ready_first=False), 1) == (0, 1, 0, 0)
    assert claimed(yard(2, 0, ready_first=False), 1) == (1, 0, 1, 0)


def test_a_pick_never_exceeds_its_limit() -> None:
    for limit in range(12):
        assert len(yard(5, 5).pick(limit)) == min(limit, 10)


def test_priority_first_the_plans_then_the_tasks_then_time() -> None:
    place = Yard()
    place.submit("late", task("l-low"), task("l-high", priority=9))
    place.later(1)
    place.submit("later", task("x1"))
    place.later(1)
    place.submit("urgent", task("u-low", priority=-5), task("u-high", priority=1), priority=1)
    assert names(place.pick(10)) == ["u-high", "u-low", "l-high", "x1", "l-low"]


def test_one_after_the_other_in_the_order_in_which_they_became_claimable() -> None:
    place = Yard()
    place.submit("p", task("a"), task("c", after="a"), task("b"))
    place.later(1)
    place.complete(*place.claim(1))
    assert names(place.pick(10)) == ["b", "c"]


def test_only_the_kinds_asked_for() -> None:
    place = Yard()
    place.submit("p", task("a", kind="x"), task("b", kind="y"), task("c", kind="x", priority=1))
    assert names(place.pick(10, kinds=("x", "nothing"))) == ["c", "a"]
    assert names(place.pick(10, kinds=())) == []
    assert names(place.pick(10, kinds=("y",))) == ["b"]


def test_the_order_holds_across_kinds() -> None:
    place = Yard()
    for n in range(6):
        place.submit(f"p{n}", task(f"t{n}", kind="xyz"[n % 3]))
        place.later(1)
    assert names(place.pick(10)) == [f"t{n}" for n in range(6)]
    assert names(Yard().pick(10)) == []


def test_an_expired_lease_belongs_to_the_ready_lane_by_the_time_it_expired() -> None:
    place = Yard()
    place.submit("p", task("slow", lease_s=10), task("quick", lease_s=5))
    place.claim(2)
    place.later(7)
    place.submit("q", task("between"))
    place.later(5)
    place.submit("r", task("last"))
    picks = place.pick(10)
    assert names(picks) == ["quick", "between", "last", "slow"]
    assert {pick.seat.lane for pick in picks} == {"ready"}


def test_dead_seats_do_not_pile_up_in_a_lane_without_claims() -> None:
    place = Yard()
    place.submit("p", *(task(f"t{n}", kind="rare") for n in range(10)))
    place.submit("top", task("top", kind="rare", priority=9), priority=9)
    for _ in range(500):
        place.say(commands.Pause(plan_id="p"))
        place.say(commands.Resume(plan_id="p"))
    assert place.board.places.claimable == 11
    assert len(place.board.places.lanes) < 200
    assert names(place.pick(100))[:2] == ["top", "t0"]


def test_a_large_plan_that_ends_leaves_no_dead_seats_for_one_look_to_take_out() -> None:
    place = Yard()
    place.submit("large", *(task(f"t{n}", kind="rare") for n in range(1_000)))
    place.submit("small", task("t", kind="rare"))
    place.say(commands.Cancel(plan_id="large"))
    assert place.board.places.claimable == 1
    assert len(place.board.places.lanes) < 200
