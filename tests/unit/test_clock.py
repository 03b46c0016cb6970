"""Log time: never ahead of the log's own clock, whatever the process's clocks show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.log_clock import WINDOW_S, LogClock


class Monotonic:
    def __init__(self) -> None:
        self.at = 50.0

    def __call__(self) -> float:
        return self.at


def test_before_the_first_timestamp_there_is_no_log_time() -> None:
    clock = LogClock(Monotonic())
    assert not clock.is_set
    with pytest.raises(RuntimeError):
        clock.now()


def test_log_time_goes_on_by_itself() -> None:
    local = Monotonic()
    clock = LogClock(local)
    clock.observe(1_000.0)
    local.at += 7
    assert clock.now() == 1_007.0


def test_the_quickest_delivery_counts() -> None:
    local = Monotonic()
    clock = LogClock(local)
    clock.observe(1_000.0)
    local.at += 1
    clock.observe(1_000.5)  # delivered late: believed only if it says more
    assert clock.now() == 1_001.0
    clock.observe(1_001.25)
    assert clock.now() == 1_001.25


@given(st.lists(st.tuples(st.floats(0.001, 30), st.floats(0, 5)), min_size=1, max_size=60))
def test_it_never_runs_ahead_of_the_log(deliveries: list[tuple[float, float]]) -> None:
    local, log_ahead = Monotonic(), 12_345.0
    clock = LogClock(local)
    for pause, delay in deliveries:
        local.at += pause
        clock.observe(local.at + log_ahead - delay)
        assert clock.now() <= local.at + log_ahead + 1e-6
        local.at += pause
        assert clock.now() <= local.at + log_ahead + 1e-6


def test_a_log_whose_clock_was_set_back_is_believed_within_two_windows() -> None:
    local = Monotonic()
    clock = LogClock(local)
    clock.observe(1_000.0)
    for _ in range(5):
        local.at += WINDOW_S / 2 + 1
        clock.observe(local.at - 100)
    assert clock.now() == local.at - 100


def test_old_timestamps_read_again_do_not_set_it_back() -> None:
    local = Monotonic()
    clock = LogClock(local)
    clock.observe(1_000.0)
    for at in range(10):
        clock.observe(float(at))
    assert clock.now() == 1_000.0
