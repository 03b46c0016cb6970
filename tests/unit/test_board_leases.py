"""No lease is reclaimed early, whatever is done to the clock of the log's server."""

import pytest

from projections.board.board import Board
from projections.board.lanes import SharingRule
from streams.log import Fact
from streams.plan.dependencies import settle
from streams.plan.events import Claimed, Event, Heartbeat, Released, Started, Submitted
from tests.unit.plan_story import task

LEASE_S = 10.0


class Place:
    """A board beside a log whose clock is ``ahead`` of this process's."""

    def __init__(self) -> None:
        self.local, self.ahead = 100.0, 1_000.0
        self.farthest = 0.0
        self.board = Board(SharingRule(), "a", clock=self)
        self.write(None, settle(Submitted(tasks=(task("t", lease_s=LEASE_S),))))
        self.write("t", Claimed(owner="w", attempt=1, lease_s=LEASE_S))

    def monotonic(self) -> float:
        return self.local

    def stream_now(self) -> float:
        return self.local + self.ahead

    def now(self) -> float:
        """Log time, which never goes back."""
        self.farthest = max(self.farthest, self.ahead)
        return self.local + self.farthest

    @property
    def is_overdue(self) -> bool:
        return bool(self.board.places.overdue(self.now()))

    def write(self, task_id: str | None, event: Event) -> None:
        sequence = self.board.sequence + 1
        self.board.apply(Fact(sequence, self.stream_now(), "p", task_id, event), self.now())

    def renew(self) -> None:
        self.write("t", Heartbeat(owner="w", attempt=1, lease_s=LEASE_S))

    @property
    def can_be_claimed(self) -> bool:
        picks = self.board.places.pick(1, None, self.now())
        for pick in picks:
            self.board.places.give_back(pick.seat, self.now())
        assert bool(self.board.places.expired()) is bool(picks)
        return bool(picks)


@pytest.mark.parametrize("by", [-3600.0, -60.0, -1.0, 0.0, 1.0, 60.0, 3600.0])
def test_a_lease_that_is_renewed_is_never_offered(by: float) -> None:
    place = Place()
    for second in range(40):
        if second == 15:
            place.ahead += by
            assert not place.can_be_claimed
        if second % 3 == 0:
            place.renew()
        place.local += 1
        assert not place.can_be_claimed, f"after {second} s"


@pytest.mark.parametrize("by", [0.0, 1.0, 60.0, 3600.0])
def test_a_lease_whose_owner_has_died_is_offered_when_it_has_lasted(by: float) -> None:
    place = Place()
    place.local += 4
    place.ahead += by
    assert not place.can_be_claimed
    place.local += LEASE_S - 4.1
    assert not place.can_be_claimed
    place.local += 0.2
    assert place.can_be_claimed


@pytest.mark.parametrize("by", [-1.0, -60.0, -3600.0])
def test_after_a_step_back_no_claim_is_made_that_the_fold_would_ignore(by: float) -> None:
    place = Place()
    place.local += 4
    place.ahead += by
    place.local += LEASE_S - 4
    assert not place.can_be_claimed
    place.local += 0.1 - by
    assert place.can_be_claimed


def test_a_lease_that_is_read_late_has_run_for_a_part_of_its_time() -> None:
    place = Place()
    at = place.stream_now()
    place.local += LEASE_S - 1
    renewed = Heartbeat(owner="w", attempt=1, lease_s=LEASE_S)
    place.board.apply(Fact(3, at, "p", "t", renewed), place.now())
    assert not place.can_be_claimed
    place.local += 1.1
    assert place.can_be_claimed


@pytest.mark.parametrize("by", [-3600.0, -60.0, -1.0, 0.0, 1.0, 60.0, 3600.0])
@pytest.mark.parametrize("stepped_after_s", [-1, 7])
def test_an_attempt_has_its_time_whatever_is_done_to_the_clock(
    by: float, stepped_after_s: int
) -> None:
    """The clock is set before the claim, or while the attempt runs."""
    place = Place()
    place.local += LEASE_S + 1
    place.now()
    if stepped_after_s < 0:
        place.ahead += by
        place.local += max(0.0, -by)  # until the first lease is over by that clock, too
    owner = {"owner": "v", "attempt": 2, "previous_owner": "w"}
    place.write("t", Claimed(**owner, lease_s=LEASE_S, started=True, timeout_s=20.0))
    for second in range(29):
        if second == stepped_after_s:
            place.ahead += by
        place.local += 1
        assert not place.is_overdue, f"after {second} s"
    place.local += 2
    assert place.is_overdue


def test_only_an_attempt_whose_time_is_bounded_is_overdue_and_stays_so_until_it_ends() -> None:
    place = Place()  # its first attempt has no bound
    place.local += LEASE_S + 1
    assert not place.is_overdue
    fence = {"owner": "v", "lease_s": LEASE_S}
    place.write("t", Claimed(attempt=2, previous_owner="w", timeout_s=20.0, **fence))
    for _ in range(4):
        place.local += 7
        place.write("t", Heartbeat(attempt=2, **fence))
        assert not place.is_overdue
    place.write("t", Started(owner="v", attempt=2))  # its time begins
    place.local += 29
    assert not place.is_overdue
    place.local += 2
    assert place.is_overdue
    assert place.is_overdue
    place.write("t", Claimed(owner="u", attempt=3, previous_owner="v", lease_s=1, timeout_s=3.0))
    assert not place.is_overdue
    place.local += 5
    assert place.is_overdue, "a shorter time of the next attempt counts"
    place.write("t", Released(owner="u", attempt=3))
    assert not place.is_overdue
