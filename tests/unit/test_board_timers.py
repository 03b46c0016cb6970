"""What becomes due when, and that renewals cost no timers."""

from math import inf

import pytest

from projections.board.timers import Timers
from streams.plan import commands
from streams.plan.retry import LONGEST_RELEASE_DELAY_S
from tests.unit.board_story import START_AT, Yard, names
from tests.unit.plan_story import task


def test_things_come_out_when_they_are_due_soonest_first() -> None:
    timers: Timers[str] = Timers()
    timers.set(1, 30, "late")
    timers.set(2, 10, "soon")
    timers.set(3, 20, "between")
    assert timers.next_due() == 10
    assert list(timers.take(9.9)) == []
    assert list(timers.take(20)) == ["soon", "between"]
    assert list(timers.take(99)) == ["late"]
    assert timers.next_due() == inf
    assert len(timers) == 0


def test_a_key_has_one_due_time_the_last_one_set() -> None:
    timers: Timers[str] = Timers()
    timers.set(1, 10, "a")
    timers.set(1, 20, "a")
    assert list(timers.take(15)) == []
    assert list(timers.take(20)) == ["a"]
    timers.set(1, 40, "a")
    timers.set(1, 30, "a")
    assert list(timers.take(30)) == ["a"]
    assert list(timers.take(99)) == []


def test_what_is_cancelled_never_comes_out_and_may_be_set_again() -> None:
    timers: Timers[str] = Timers()
    timers.set(1, 10, "a")
    timers.cancel(1)
    timers.cancel(2)
    assert list(timers.take(10)) == []
    timers.set(1, 10, "b")
    assert list(timers.take(10)) == ["b"]


def test_cancelled_and_moved_timers_do_not_pile_up() -> None:
    timers: Timers[str] = Timers()
    for n in range(10_000):
        timers.set(n, 1_000 + n, "x")
        timers.cancel(n)
    assert len(timers) < 200
    for n in range(10_000):
        timers.set(1, 20_000 - n, "x")
    assert len(timers) < 200
    assert list(timers.take(99_999)) == ["x"]


def test_renewing_leases_does_not_pile_up_timers() -> None:
    place = Yard()
    place.submit("p", *(task(f"t{n}", lease_s=10) for n in range(20)))
    picks = place.claim(20)
    for _ in range(200):
        place.later(1)
        for pick in picks:
            place.own(commands.Heartbeat, pick)
        place.board.places.advance(place.at)
        assert len(place.board.places.timers) <= 2 * 20
    assert place.board.places.expired() == []
    place.later(10)
    place.board.places.advance(place.at)
    assert len(place.board.places.expired()) == 20


def test_ended_attempts_do_not_pile_up_timers() -> None:
    place = Yard()
    place.submit("p", task("a", lease_s=100_000))
    for _ in range(1_000):
        place.own(commands.Release, place.claim(1)[0])
        place.later(LONGEST_RELEASE_DELAY_S)
    assert len(place.board.places.timers) < 200


def test_pausing_does_not_pile_up_timers() -> None:
    place = Yard()
    place.submit("p", task("a"))
    place.own(commands.Fail, place.claim(1)[0], error_type="x", retry_in_s=50_000)
    for _ in range(500):
        place.say(commands.Pause(plan_id="p"))
        place.say(commands.Resume(plan_id="p"))
    assert len(place.board.places.timers) < 200
    place.later(50_000)
    assert names(place.pick(1)) == ["a"]


def test_a_shorter_lease_of_the_next_attempt_is_noticed_in_time() -> None:
    place = Yard()
    place.submit("p", task("a", lease_s=100))
    place.own(commands.Release, place.claim(1)[0])
    place.write("p", "a", *claimed_for(5, attempt=2))
    assert place.board.places.next_due() == START_AT + 5
    place.later(5)
    assert names(place.pick(1)) == ["a"]


def claimed_for(lease_s: float, attempt: int) -> tuple:
    from streams.plan.events import Claimed  # noqa: PLC0415

    return (Claimed(owner="w", attempt=attempt, lease_s=lease_s),)


def test_next_due_is_the_soonest_of_delays_and_leases() -> None:
    place = Yard()
    assert place.board.places.next_due() is None
    place.submit("p", task("a", lease_s=30), task("b"))
    assert place.board.places.next_due() is None
    picks = place.claim(2)
    assert place.board.places.next_due() == pytest.approx(START_AT + 15)
    place.own(commands.Fail, picks[1], error_type="x", retry_in_s=3)
    assert place.board.places.next_due() == pytest.approx(START_AT + 3)
    place.own(commands.Release, picks[0])
    place.later(3)
    place.board.places.advance(place.at)
    assert place.board.places.next_due() is None
