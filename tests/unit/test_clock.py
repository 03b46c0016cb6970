"""Log time: never ahead of the log's own clock, whatever the process's clocks show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.log_clock import LATELY_S, LogClock


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


def test_old_timestamps_read_again_do_not_set_it_back() -> None:
    local = Monotonic()
    clock = LogClock(local)
    clock.observe(1_000.0)
    for at in range(10):
        clock.observe(float(at))
    assert clock.now() == 1_000.0


class Stream:
    """A log with a clock that is set, asked with a round trip of ``rtt`` seconds."""

    def __init__(self, rtt: float = 0.01) -> None:
        self.local = Monotonic()
        self.ahead = 12_345.0
        self.steps: list[float] = []
        self.clock = LogClock(self.local, self.steps.append)
        self.rtt = rtt

    def probe(self) -> None:
        asked_at = self.local.at
        self.local.at += self.rtt / 2
        shown = self.local.at + self.ahead
        self.local.at += self.rtt / 2
        self.clock.observe_answer(shown, asked_at)

    @property
    def error(self) -> float:
        """How far `stream_now` is ahead of the stream's clock."""
        return self.clock.stream_now() - (self.local.at + self.ahead)


@pytest.mark.parametrize("by", [-3600.0, -60.0, -1.0, 1.0, 60.0, 3600.0])
def test_a_step_of_the_logs_clock_is_followed_and_reported(by: float) -> None:
    stream = Stream()
    stream.probe()
    before = stream.clock.now()
    stream.ahead += by
    stream.probe()
    assert [round(step, 1) for step in stream.steps] == [by]
    assert -stream.rtt <= stream.error <= stream.rtt
    assert stream.clock.now() >= before, "log time never goes back"
    assert stream.clock.stepped_lately_s == pytest.approx(by, abs=0.1)
    stream.local.at += LATELY_S
    assert stream.clock.stepped_lately_s == 0


@pytest.mark.parametrize("by", [-3600.0, -60.0, -1.0, 1.0, 60.0, 3600.0])
def test_a_step_is_followed_from_the_first_fact_on(by: float) -> None:
    stream = Stream()
    stream.probe()
    stream.clock.observe_facts([stream.local.at + stream.ahead])
    stream.ahead += by
    stream.local.at += 0.1
    stream.clock.observe_facts([stream.local.at + stream.ahead])
    assert stream.error == pytest.approx(0)
    stream.probe()
    assert [round(step, 1) for step in stream.steps] == [by]


def test_steps_of_former_times_are_not_reported() -> None:
    stream = Stream()
    stream.probe()
    for at in (100.0, 101.0, 40.0, 41.0, 4_000.0):
        stream.clock.observe_facts([at])
    stream.probe()
    assert not stream.steps
    assert stream.error <= stream.rtt


def test_how_far_this_machine_s_clock_is_ahead_is_known_from_each_answer() -> None:
    local, wall = Monotonic(), Monotonic()
    clock = LogClock(local, wall=wall)
    wall.at = 1_600.0
    clock.observe_answer(1_000.0, local.at - 0.1)
    assert clock.wall_ahead_s == 600.0
    wall.at = 1_001.0
    clock.observe_answer(1_001.0, local.at)
    assert clock.wall_ahead_s == 0.0


@given(st.lists(st.tuples(st.floats(0.001, 5), st.floats(0, 0.9)), min_size=1, max_size=40))
def test_slow_answers_are_no_steps(probes: list[tuple[float, float]]) -> None:
    stream = Stream()
    for pause, rtt in probes:
        stream.local.at += pause
        stream.rtt = rtt
        stream.probe()
        stream.clock.observe(stream.local.at + stream.ahead - pause)
        assert stream.error <= rtt / 2 + 1e-6
    assert not stream.steps
