"""Daemons tick on time whatever another one does to the thread that they share."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest

from service.core.bridge import Bridge
from service.daemons.daemon import Daemon
from service.daemons.routine import JITTER
from service.daemons.schedulers import Schedulers
from service.ops.health import daemons_check, loops_check
from service.signals.loop_lag import Lag, Watch
from service.signals.metrics.registry import Metrics
from tests.waiting import eventually

PERIOD_S = 0.05
PATIENCE_S = 30.0

Step = Callable[[Bridge], Any]


class Bell:
    """A well-behaved daemon: counts its ticks, on whichever thread they are."""

    def __init__(self, name: str = "backlog_sampler") -> None:
        self.ticks = 0
        self.threads: list[str] = []
        self.daemon = Daemon(name=name, period_s=PERIOD_S, step=self._step)

    async def _step(self, _: Bridge) -> None:
        self.ticks += 1
        self.threads.append(threading.current_thread().name)


class Troublemaker:
    """A daemon that misbehaves until the test ends that."""

    def __init__(self, how: Step | None = None, name: str = "log_probe", **given: float) -> None:
        self.let_go = threading.Event()
        self.begun = threading.Event()
        self.ticks = 0
        self._how = how
        wanted: dict[str, Any] = {"stuck_s": 0.2} | given
        self.daemon = Daemon(name=name, period_s=PERIOD_S, step=self._step, **wanted)

    async def _step(self, bridge: Bridge) -> None:
        self.begun.set()
        if not self.let_go.is_set():
            if self._how is None:
                self.let_go.wait(PATIENCE_S)
            else:
                await self._how(bridge)
        self.ticks += 1

    def burn(self) -> None:
        while not self.let_go.is_set():
            pass


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@asynccontextmanager
async def ticking(
    metrics: Metrics, *daemons: Daemon, pool_size: int = 1, core: object = None
) -> AsyncIterator[Schedulers]:
    schedulers = Schedulers(daemons, pool_size, metrics)
    schedulers.start(Bridge(cast("Any", core), asyncio.get_running_loop()))
    try:
        yield schedulers
    finally:
        await schedulers.stop()


async def more_ticks(bell: Bell, count: int = 5) -> None:
    wanted = bell.ticks + count
    await eventually(lambda: bell.ticks >= wanted, "the other daemon goes on")


@pytest.fixture
def held() -> Iterator[Troublemaker]:
    """Holds its thread, as a step that reads or sleeps without awaiting does."""
    one = Troublemaker()
    yield one
    one.let_go.set()


# -- a thread that is held --------------------------------------------------------------------


async def test_a_daemon_that_holds_the_only_thread_does_not_stop_another(
    metrics: Metrics, held: Troublemaker
) -> None:
    bell = Bell()
    async with ticking(metrics, held.daemon, bell.daemon) as schedulers:
        await eventually(held.begun.is_set, "the thread is held")
        await eventually(lambda: schedulers.replaced, "the guard sees it")
        await more_ticks(bell)
        assert set(bell.threads[-5:]) == {"daemons-1"}
        assert list(schedulers.troubles()) == ["log_probe"]
        assert "holds its thread" in schedulers.troubles()["log_probe"]
        assert held.ticks == 0
        held.let_go.set()


async def test_a_holder_that_returns_follows_the_others_and_its_thread_ends(
    metrics: Metrics, held: Troublemaker
) -> None:
    bell = Bell()
    async with ticking(metrics, held.daemon, bell.daemon) as schedulers:
        await eventually(lambda: schedulers.replaced, "the guard sees it")
        assert [lag.name for lag in schedulers.lags()] == ["daemons-0", "daemons-1"]
        held.let_go.set()
        await eventually(lambda: held.ticks >= 3, "it ticks again")
        assert schedulers.troubles() == {}
        assert [lag.name for lag in schedulers.lags()] == ["daemons-1"]
        await eventually(lambda: "daemons-0" not in names_of_threads(), "the old thread has ended")
        await more_ticks(bell)
        assert schedulers.replaced == 1


def names_of_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


async def test_one_that_computes_without_end_is_no_different(metrics: Metrics) -> None:
    bell = Bell()

    async def burn(_: Bridge) -> None:
        greedy.burn()

    greedy = Troublemaker(burn)
    async with ticking(metrics, greedy.daemon, bell.daemon) as schedulers:
        try:
            await eventually(lambda: schedulers.replaced, "the guard sees it")
            await more_ticks(bell)
            assert list(schedulers.troubles()) == ["log_probe"]
        finally:
            greedy.let_go.set()


async def test_several_that_hold_threads_cost_a_thread_each_and_no_more(metrics: Metrics) -> None:
    bell = Bell()
    holders = [Troublemaker(name=name) for name in ("log_probe", "plan_closer", "lease_monitor")]
    daemons = [each.daemon for each in holders]
    async with ticking(metrics, *daemons, bell.daemon) as schedulers:
        try:
            await eventually(lambda: schedulers.replaced == 3, "each is seen")
            await more_ticks(bell, 20)
            assert schedulers.replaced == 3
            assert len(schedulers.lags()) == 4
            assert set(schedulers.troubles()) == {each.name for each in daemons}
        finally:
            for each in holders:
                each.let_go.set()
        await eventually(lambda: all(each.ticks > 2 for each in holders), "all tick again")
        await eventually(lambda: len(schedulers.lags()) == 1, "one thread is left")
        assert schedulers.troubles() == {}


async def test_lateness_tells_what_the_others_suffered(
    metrics: Metrics, held: Troublemaker
) -> None:
    bell = Bell()
    async with ticking(metrics, held.daemon, bell.daemon) as schedulers:
        await eventually(lambda: schedulers.replaced, "the guard sees it")
        await more_ticks(bell)
        held.let_go.set()
    lateness = metrics.shown("agent.daemon.lateness")
    assert lateness is not None
    (mine,) = (each for each in lateness.values if each.labels["daemon"] == bell.daemon.name)
    assert mine.sum is not None
    assert mine.sum > 0.2, "the one tick that came late is in the histogram"


async def test_ticks_never_overlap_even_when_one_is_taken_to_another_thread(
    metrics: Metrics,
) -> None:
    """One waits in the core when its thread is held by another; its next tick waits for it."""
    open_gate, inside, most, ticks = asyncio.Event(), 0, 0, 0
    held = Troublemaker()

    async def in_core(_: object) -> None:
        nonlocal inside, most, ticks
        inside += 1
        most = max(most, inside)
        try:
            await open_gate.wait()
            ticks += 1
        finally:
            inside -= 1

    async def step(bridge: Bridge) -> None:
        await bridge.call(in_core)

    waiting = Daemon(name="lease_monitor", period_s=PERIOD_S, step=step)
    async with ticking(metrics, waiting, held.daemon) as schedulers:
        try:
            await eventually(lambda: inside and schedulers.replaced, "one waits, the other holds")
            await eventually(lambda: schedulers.states[0].began_at is not None, "it ticks anew")
            open_gate.set()
            await eventually(lambda: ticks > 5, "it goes on")
            assert most == 1
        finally:
            held.let_go.set()


# -- a step that does not end -----------------------------------------------------------------


async def test_one_that_awaits_for_ever_is_stuck_then_cancelled_and_reported_until_it_succeeds(
    metrics: Metrics,
) -> None:
    bell = Bell()
    patient = Troublemaker(lambda _: asyncio.sleep(3600), deadline_s=0.6)
    async with ticking(metrics, patient.daemon, bell.daemon) as schedulers:
        check = partial(daemons_check, schedulers)
        await eventually(lambda: "stuck" in check().detail, "it is stuck")
        await eventually(lambda: "longer than 0.6 s" in check().detail, "it is cut off")
        # Between its ticks, too: a daemon that is cut off again and again never looks well.
        wanted = time.monotonic() + 1
        while time.monotonic() < wanted:
            assert not check().ok
            await asyncio.sleep(0.005)
        patient.let_go.set()
        await eventually(lambda: check().ok, "it succeeded")
        assert schedulers.replaced == 0
        await more_ticks(bell)


async def test_one_that_ignores_its_cancellation_is_reported_and_stops_no_other(
    metrics: Metrics,
) -> None:
    bell = Bell()

    async def deaf(_: Bridge) -> None:
        while not stubborn.let_go.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    stubborn = Troublemaker(deaf, deadline_s=0.1)
    async with ticking(metrics, stubborn.daemon, bell.daemon) as schedulers:
        await eventually(
            lambda: "stuck" in schedulers.troubles().get("log_probe", ""), "it is stuck"
        )
        await more_ticks(bell, 20)
        stubborn.let_go.set()
        await eventually(lambda: not schedulers.troubles(), "it goes on")


async def test_one_that_fails_is_reported_by_its_error_unless_it_is_a_probe(
    metrics: Metrics,
) -> None:
    async def fail(_: Bridge) -> None:
        raise OSError("the disk is on fire")

    failing = Troublemaker(fail)
    async with ticking(metrics, failing.daemon) as schedulers:
        await eventually(lambda: schedulers.error_of("log_probe"), "it has failed")
        state = schedulers.states[0]
        assert state.trouble(failing.daemon) is None, "once is no trouble"
        assert state.fails_since is not None
        state.fails_since -= 60
        assert state.trouble(failing.daemon) == "the disk is on fire"
        probe = Daemon(name="log_probe", period_s=PERIOD_S, step=fail, probe=True)
        assert state.trouble(probe) is None
        failing.let_go.set()
        await eventually(lambda: schedulers.error_of("log_probe") is None, "it has recovered")


# -- time -------------------------------------------------------------------------------------


async def test_chance_moves_ticks_but_not_the_period(metrics: Metrics) -> None:
    bell = Bell()
    async with ticking(metrics, bell.daemon) as schedulers:
        (state,) = schedulers.states
        first = state.due_at
        dues: set[float] = set()
        while bell.ticks < 30:
            dues.add(state.due_at)
            await asyncio.sleep(0.005)
    off = [((due - first) % PERIOD_S) / PERIOD_S for due in dues]
    assert all(share <= JITTER + 1e-6 or share >= 1 - JITTER for share in off)
    assert len({round(share, 6) for share in off}) > 5


async def test_daemons_have_as_many_threads_as_the_pool_says(metrics: Metrics) -> None:
    bells = [Bell(name) for name in ("log_probe", "plan_closer", "lease_monitor")]
    for size, threads in ((1, 1), (2, 2), (64, 3)):
        async with ticking(metrics, *(each.daemon for each in bells), pool_size=size):
            assert names_of_threads() >= {f"daemons-{n}" for n in range(threads)}
            assert f"daemons-{threads}" not in names_of_threads()


# -- loops that are held ----------------------------------------------------------------------


async def test_a_held_loop_is_named_while_it_is_held(metrics: Metrics, held: Troublemaker) -> None:
    async with ticking(metrics, held.daemon) as schedulers:
        check = partial(loops_check, list(schedulers.lags()))
        await eventually(held.begun.is_set, "the thread is held")
        assert check().ok
        await eventually(lambda: not check().ok, "readiness sees it")
        assert check().detail.startswith("daemons-0 is held up for 1.")
        held.let_go.set()
        await eventually(lambda: check().ok, "it is free")


async def test_the_watch_says_where_the_loop_that_runs_this_test_is_held(
    metrics: Metrics, capsys: pytest.CaptureFixture[str]
) -> None:
    lag = Lag("api", "api", metrics)
    sampling = asyncio.create_task(lag.sample_forever())
    watch = Watch(lambda: [lag])
    watch.start()
    try:
        await asyncio.sleep(0)
        time.sleep(1.8)  # noqa: ASYNC251 - the fault
        assert lag.held_s > 1
        await eventually(lambda: lag.held_s == 0, "the loop runs on")
        watch.step()
    finally:
        watch.stop()
        sampling.cancel()
    said = capsys.readouterr().out
    assert "loop_held" in said
    assert "test_schedulers.py" in said
    assert "loop_free" in said
