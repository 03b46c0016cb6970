"""Plans take turns by priority, waiting raises priority, and the backlog is counted."""

from collections import Counter

import pytest

from projections.board.turns import TURNS_PER_PRIORITY
from streams.plan import commands
from streams.plan.evolve import in_one_go
from tests.unit.board_story import Yard, names
from tests.unit.plan_story import task

LONG_S = 3_600


def flood(place: Yard, plan_id: str, tasks: int = 400, **settings: int) -> None:
    place.submit(
        plan_id, *(task(f"{plan_id}{n}", lease_s=LONG_S) for n in range(tasks)), **settings
    )


def plans_of(place: Yard, picks: int) -> list[str]:
    """The plans of so many single claims, one after the other."""
    return [place.claim(1)[0].seat.plan.plan_id for _ in range(picks)]


def test_one_task_does_not_wait_for_all_tasks_of_a_plan_that_came_before() -> None:
    place = Yard()
    flood(place, "a")
    place.claim(3)
    place.later(5)
    place.submit("b", task("echo"))
    assert "echo" in names(place.claim(2))


def test_plans_of_one_priority_take_turns_in_one_pick_and_over_many() -> None:
    place = Yard()
    for name in "abc":
        flood(place, name)
    assert Counter(pick.seat.plan.plan_id for pick in place.claim(30)) == dict.fromkeys("abc", 10)
    assert Counter(plans_of(place, 30)) == dict.fromkeys("abc", 10)


@pytest.mark.parametrize("ageing_s", [0, 30])
def test_a_higher_priority_gets_more_turns_and_a_lower_one_some(ageing_s: float) -> None:
    place = Yard(ageing_s=ageing_s)
    flood(place, "low")
    flood(place, "high", priority=1)
    shares = Counter(plans_of(place, 100))
    assert shares["high"] / shares["low"] == pytest.approx(TURNS_PER_PRIORITY + 1, rel=0.3)


def test_beside_a_steady_stream_of_a_higher_priority_the_lower_one_starts() -> None:
    place = Yard()
    place.submit("low", task("patient"))
    n = 0
    for n in range(10 * TURNS_PER_PRIORITY):
        place.submit(f"high{n}", task("quick"), priority=5)
        place.later(0.1)
        if names(place.claim(1)) == ["patient"]:
            break
    assert 4 * TURNS_PER_PRIORITY < n <= 5 * TURNS_PER_PRIORITY + 1


def test_waiting_raises_the_priority_without_any_turn_meanwhile() -> None:
    place = Yard(ageing_s=30)
    place.submit("low", task("patient"))
    place.later(4 * 30)
    place.submit("high", task("urgent"), priority=5)
    assert names(place.pick(1)) == ["urgent"]
    place = Yard(ageing_s=30)
    place.submit("low", task("patient"))
    place.later(6 * 30)
    place.submit("high", task("urgent"), priority=5)
    assert names(place.pick(1)) == ["patient"]


def test_without_ageing_only_turns_raise_the_priority() -> None:
    place = Yard(ageing_s=0)
    place.submit("low", task("patient"))
    place.later(1e6)
    place.submit("high", task("urgent"), priority=1)
    assert names(place.pick(1)) == ["urgent"]


def test_within_a_plan_priority_counts_then_time_then_the_order_submitted() -> None:
    place = Yard()
    place.submit("p", task("b"), task("a"), task("c", priority=1), task("d", after="c"))
    place.later(1)
    place.complete(*place.claim(1))
    assert names(place.pick(5)) == ["b", "a", "d"]


def test_a_seat_given_back_unclaimed_costs_its_plan_no_turn() -> None:
    place = Yard(ageing_s=0)
    place.submit("a", task("mine"))
    flood(place, "b", tasks=20)
    for _ in range(7):
        (pick,) = place.pick(1)
        assert names([pick]) == ["mine"]
        place.board.places.give_back(pick.seat, place.at)
    for pick in reversed(place.pick(15)):
        place.board.places.give_back(pick.seat, place.at)
    assert "mine" in names(place.pick(2))


def test_the_backlog_is_counted_with_the_time_of_its_oldest_task() -> None:
    place = Yard()
    assert place.board.places.backlog() == {"ready": (0, None), "refining": (0, None)}
    place.submit("p", task("a", lease_s=LONG_S), task("b", kind="x"))
    place.later(3)
    place.submit("q", task("c"))
    (a, _, c) = place.pick(3)
    assert place.board.places.backlog()["ready"] == (3, 1_000), "reserved ones wait still"
    for pick in (a, c):
        place.board.places.give_back(pick.seat, place.at)
    (claimed,) = place.claim(1, kinds=("echo",))
    assert names([claimed]) == ["a"]
    assert place.board.places.backlog()["ready"] == (2, 1_000)
    kinds = {
        kind: (n, seat.since)
        for kind, (n, seat) in in_one_go(place.board.places.backlog_by_kind()).items()
    }
    assert kinds == {"x": (1, 1_000), "echo": (1, 1_003)}
    place.say(commands.Cancel(plan_id="p"))
    assert place.board.places.backlog()["ready"] == (1, 1_003)
    place.own(commands.Fail, place.claim(1)[0], error_type="x", retry_in_s=5)
    assert place.board.places.backlog() == {"ready": (0, None), "refining": (0, None)}
    place.later(5)
    place.board.places.advance(place.at)
    assert place.board.places.backlog()["refining"] == (1, 1_008)
