"""A vital loop that ends ends the instance, on whatever thread it ran."""

import asyncio
import io
import threading
from contextlib import AsyncExitStack

import pytest

from service.daemons.daemon import Daemon
from service.daemons.schedulers import Schedulers
from service.runtime.supervision import Supervision, guard
from service.signals.logs import QueuedHandler
from service.signals.loop_lag import Lag, MeasuredLoop, Watch
from service.signals.metrics.registry import Metrics

PATIENCE_S = 20.0


async def reason(supervision: Supervision) -> str:
    async with AsyncExitStack() as stack:
        guard(stack, supervision.died, threads=supervision.look_forever())
        async with asyncio.timeout(PATIENCE_S):
            return await supervision.died


async def nothing(_: object) -> None:
    """A step that succeeds."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_watch_over_loops_is_watched() -> None:
    supervision = Supervision()
    Watch(lambda: 1 / 0).start(supervision)  # pyright: ignore[reportArgumentType]
    assert "'watch'" in await reason(supervision)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_guard_of_the_daemons_threads_is_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supervision = Supervision()
    daemon = Daemon(name="log_probe", period_s=60, step=nothing)
    schedulers = Schedulers([daemon], 1, Metrics(), supervision)
    monkeypatch.setattr(Lag, "held_s", property(lambda _: 1 / 0))
    schedulers.start(None)  # pyright: ignore[reportArgumentType]
    assert "'daemons-guard'" in await reason(supervision)
    await schedulers.stop()


async def test_a_daemon_whose_loop_breaks_is_reported() -> None:
    supervision, metrics = Supervision(), Metrics()
    daemon = Daemon(name="log_probe", period_s=0.01, step=nothing)
    schedulers = Schedulers([daemon], 1, metrics, supervision)
    metrics.observe = lambda *_, **__: 1 / 0  # pyright: ignore[reportAttributeAccessIssue]
    schedulers.start(None)  # pyright: ignore[reportArgumentType]
    why = await reason(supervision)
    assert "daemon log_probe" in why or "daemons-0, lag" in why
    assert "ZeroDivisionError" in why
    await schedulers.stop()


async def test_a_thread_whose_loop_ends_is_reported() -> None:
    supervision = Supervision()
    thread = MeasuredLoop("executor-0", "executor", Metrics())
    thread.start(supervision)
    thread.loop.call_soon_threadsafe(thread.loop.stop)
    assert "'executor-0'" in await reason(supervision)


async def test_the_writer_of_log_lines_is_watched() -> None:
    supervision = Supervision()
    handler = QueuedHandler(io.StringIO())
    supervision.watch_thread(handler.writer)
    handler.close()  # as an error in it would end it
    assert "'logs'" in await reason(supervision)


async def test_what_ends_while_the_instance_stops_is_no_news() -> None:
    supervision = Supervision()
    thread = threading.Thread(target=int, name="short")
    thread.start()
    thread.join()
    supervision.watch_thread(thread)
    supervision.close()
    supervision.ended("any", None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await supervision.look_forever()
    assert not supervision.died.done()
