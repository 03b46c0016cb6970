"""After a write that was not answered the log is asked to take one before it counts as there."""

import asyncio
from typing import Any, cast

import pytest

from service.core.core import Core
from service.core.log_clock import LogClock
from service.daemons.log_probe import LogProbe
from service.signals.metrics.appends import LogObserver
from service.signals.metrics.registry import Metrics
from streams.log import Appended, Draft, LogState, LogUnavailable, Origin
from tests.memory_log import MemoryLog


class Log(MemoryLog):
    """Answers every question, and writes while it is not mute; its observer learns of both."""

    def __init__(self, observer: LogObserver) -> None:
        super().__init__()
        self.mute = False
        self.tries = 0
        self._told = observer

    async def append(self, draft: Draft) -> Any:
        self.tries += 1
        if self.mute:
            self._told.append_failed("unavailable")
            raise LogUnavailable("no answer within 10 s")
        outcome = await super().append(draft)
        assert isinstance(outcome, Appended)
        self._told.appended(1, 1, 0.001)
        return outcome


class Surroundings:
    """What the probe asks of the core."""

    instance_id = "me"
    self_origin = Origin(actor="me", instance="me")

    def __init__(self, log: Log) -> None:
        self.log = log
        self.log_state: LogState | None = None
        self.clock = LogClock()
        self.seen: list[str | None] = []
        self.conditions = self

    def now(self) -> float:
        return 1.0

    def log_seen(self, state: LogState) -> None:
        self.log_state = state

    def log_answers(self, _witness: str, error: str | None, _at: float | None = None) -> None:
        self.seen.append(error)


async def test_readiness_rests_on_a_write_after_one_was_not_answered() -> None:
    observer, muted = LogObserver(Metrics()), list[str]()
    log = Log(observer)
    around = Surroundings(log)
    core, probe = cast("Core", around), LogProbe(observer, muted.append)

    await probe.step(core)
    assert (around.seen, log.tries) == ([None], 0)  # nothing is written while nothing is wrong

    log.mute = True
    observer.append_failed("unavailable")
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="the log gave no answer"):
            await probe.step(core)
    assert around.seen[-1] is not None
    assert muted == ["no answer within 10 s"] * 2

    log.mute = False
    await probe.step(core)
    assert around.seen[-1] is None
    tries = log.tries
    await probe.step(core)
    assert log.tries == tries


async def test_a_probe_that_hangs_is_not_written_twice() -> None:
    observer = LogObserver(Metrics())
    log = Log(observer)
    hangs = asyncio.Event()

    async def append(_: Draft) -> None:
        log.tries += 1
        await hangs.wait()

    log.append = append  # type: ignore[method-assign]
    core, probe = cast("Core", Surroundings(log)), LogProbe(observer, lambda _: None)
    observer.append_failed("unavailable")
    for _ in range(2):
        with pytest.raises(LogUnavailable):
            await probe.step(core)
    assert log.tries == 1
    hangs.set()
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


async def test_a_full_log_answers() -> None:
    observer = LogObserver(Metrics())
    observer.append_failed("unavailable")
    observer.append_failed("full")
    core = cast("Core", Surroundings(Log(observer)))
    await LogProbe(observer, lambda _: None).step(core)
