"""For how long drafts are held while a batch is on its way."""

import pytest

from streams.jetstream.pace import MANY, MOST_S, SHARE, BatchPace


def pace_of(batch_s: float) -> BatchPace:
    """One that has seen many batches of this length."""
    pace = BatchPace()
    for _ in range(200):
        pace.stored(batch_s)
    return pace


def test_nothing_is_held_before_a_batch_has_been_sent() -> None:
    assert pace_of(0.005).hold_s(1, now=100.0) == 0


def test_the_first_batch_holds_nothing_since_its_time_is_not_known() -> None:
    pace = BatchPace()
    pace.sent(now=100.0)
    assert pace.hold_s(1, now=100.0) == 0


def test_few_are_held_for_a_share_of_the_time_that_batches_take() -> None:
    pace = pace_of(0.005)
    pace.sent(now=100.0)
    assert pace.hold_s(MANY - 1, now=100.001) == pytest.approx(SHARE * 0.005 - 0.001)
    assert pace.hold_s(MANY - 1, now=100.0 + 0.005) == 0


def test_many_are_not_held() -> None:
    pace = pace_of(0.005)
    pace.sent(now=100.0)
    assert pace.hold_s(MANY, now=100.001) == 0


def test_batches_that_take_seconds_hold_drafts_for_milliseconds() -> None:
    pace = pace_of(5.0)
    pace.sent(now=100.0)
    assert pace.hold_s(1, now=100.0) == pytest.approx(MOST_S)


def test_one_slow_batch_changes_little() -> None:
    pace = pace_of(0.002)
    pace.stored(0.012)
    pace.sent(now=100.0)
    assert pace.hold_s(1, now=100.0) == pytest.approx(SHARE * 0.003)
