"""Worker host processes that die, go deaf or are asked to end cost only what they ran."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from holdfast_worker.handler import handler
from holdfast_worker.task import TaskRun
from service.executor.attempts.endings import Failure
from service.executor.dispatcher import Dispatcher
from service.executor.hosts.host import Host
from service.executor.hosts.runner import HostRunner
from service.executor.limits import ExecutorLimits
from service.runtime.child_process import process_state
from service.runtime.masking import KNOWN
from tests.integration.host_world import Called, CallWorld, calling_handlers
from tests.unit.executor_world import FakeCore, executing, output_of, spec
from tests.waiting import eventually, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part in it")

MEMORY = "agent.task.worker.host.memory"
REPLACED = "agent.task.worker.host.replaced.total"
OVERRUN = "agent.task.worker.overrun.current"


async def failure_of(called: Called) -> Failure:
    ending = await called.ending()
    assert isinstance(ending, Failure), ending
    return ending


async def test_handlers_run_in_another_process_and_async_ones_share_its_loop() -> None:
    async with calling_handlers() as world:
        first, second = world.call("meets"), world.call("meets")
        pids = {await first.output(), await second.output(), await world.pid()}
        assert len(pids) == 1
        assert os.getpid() not in pids
        (host,) = world.runner.hosts()
        assert (host.state, host.overrunning) == ("ready", 0)
        assert host.memory_bytes > 10_000_000
        assert await world.call("dumpable").output() == 0


@pytest.mark.parametrize("kind", ["niceness", "process_niceness"])
async def test_processes_of_handlers_and_their_programs_give_way_to_the_service(kind: str) -> None:
    nice = min(os.nice(0) + 10, 19)
    async with calling_handlers() as world:
        assert set(await world.call(kind).output()) == {nice}


@pytest.mark.parametrize(
    ("kind", "how"),
    [("killed", "SIGKILL"), ("exits", "with code 7"), ("segfaults", "by SIGSEGV")],
)
async def test_a_host_that_dies_loses_its_own_tasks_and_is_replaced(kind: str, how: str) -> None:
    async with calling_handlers(processes=2) as world:
        await eventually(lambda: all(each.ready for each in hosts_of(world)), "both are ready")
        beside, elsewhere = world.call("polite"), world.call("polite")
        fatal = world.call(kind)
        for lost in (await failure_of(fatal), await failure_of(beside)):
            assert lost.error_type == "process_died"
            assert how in lost.error_message
            assert "1 other tasks" in lost.error_message
        assert not elsewhere.over.done()
        assert world.replaced["replaced"] == 1
        await eventually(
            lambda: all(each.ready for each in hosts_of(world)), "the new one is ready"
        )
        pids = {await each.output() for each in [world.call("where", 0.2) for _ in range(4)]}
        assert len(pids) == 2, "the new host takes its share"
        elsewhere.cancelled.cancel("draining")
        assert (await failure_of(elsewhere)).error_type == "cancelled"


@pytest.mark.parametrize("kind", ["deaf", "holds_loop"])
async def test_a_deaf_host_is_replaced_and_what_else_it_runs_may_end(kind: str) -> None:
    async with calling_handlers() as world:
        pid = await world.pid()
        deaf, beside = world.call(kind), world.call("where", 1.5)
        deaf.cancelled.cancel("timeout")
        await eventually(lambda: world.replaced["replaced"], "another host has its place")
        assert await world.pid() != pid
        assert await beside.output() == pid
        assert (await failure_of(deaf)).error_type == "cancelled"
        await eventually(lambda: process_state(pid) == "", "it was ended")
        assert len(hosts_of(world)) == 1


async def test_no_more_deaf_hosts_are_kept_than_hosts_there_are() -> None:
    async with calling_handlers() as world:
        first, _ = world.call("deaf"), world.call("where", 1.0)
        first.cancelled.cancel("timeout")
        await eventually(lambda: world.replaced["replaced"], "another host has its place")
        pid = await world.pid()
        second = world.call("deaf")
        second.cancelled.cancel("timeout")
        assert await world.pid() == pid, "it works on until there is room"
        for deaf in (first, second):
            assert (await failure_of(deaf)).error_type == "cancelled"
        assert await world.pid() != pid


async def test_a_host_that_is_asked_to_end_finishes_its_tasks_first() -> None:
    async with calling_handlers() as world:
        pid = await world.pid()
        running = world.call("where", 0.5)
        await eventually(lambda: process_state(pid), "it lives")
        os.kill(pid, signal.SIGTERM)
        assert await running.output() == pid
        await eventually(lambda: process_state(pid) == "", "it has ended")
        assert await world.pid() != pid


async def test_memory_is_bounded_and_the_host_lives_on() -> None:
    async with calling_handlers(memory_mb=300) as world:
        pid = await world.pid()
        hoarder = await failure_of(world.call("hoards", 2**30))
        assert hoarder.error_type == "out_of_memory"
        assert await world.pid() == pid
        assert await world.call("hoards", 2**20).output() == 2**20


async def test_a_frozen_host_is_replaced() -> None:
    limits = ExecutorLimits(grace_s=0.1, kill_after_s=0.2, ping_s=0.3, silent_pings=3)
    async with calling_handlers(limits=limits) as world:
        pid = await world.pid()
        os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: world.replaced["replaced"], "another host has its place")
        assert await world.pid() != pid
        await eventually(lambda: process_state(pid) == "", "it was ended")


async def test_handlers_that_no_process_can_import_run_on_threads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = ModuleType("made_in_memory")

    @handler("closure")
    def here(_: TaskRun) -> int:
        return os.getpid()

    module.here = here  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    handlers = (module.__name__, *MODULES)
    async with executing(executor__handlers=handlers, executor__worker__processes=1) as world:
        world.core.submit("p", spec("inside", "closure"), spec("outside", "where"))
        assert output_of(await world.finished("p", "inside")) == os.getpid()
        assert output_of(await world.finished("p", "outside")) != os.getpid()
    said = capsys.readouterr().out
    assert "handlers_run_on_threads" in said
    assert "the module 'made_in_memory' cannot be imported" in said


async def test_secrets_of_the_service_are_masked_in_a_hosts_log(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with calling_handlers() as world:
        await world.pid()
        KNOWN.know(["correct-horse-battery"])
        await world.call("says", "correct-horse-battery").ending()
    written = capfd.readouterr().err
    assert "the key is ***" in written
    assert "correct-horse-battery" not in written


MODULES = ("tests.integration.host_handlers",)


async def test_the_executor_names_a_deaf_handler_and_shows_that_its_host_was_replaced() -> None:
    async with executing(
        limits=ExecutorLimits(grace_s=0.1, kill_after_s=1.5),
        executor__handlers=MODULES,
        executor__worker__processes=1,
    ) as world:
        core, metrics = world.core, world.metrics
        await core.until(lambda: metrics.gauges.get(MEMORY, 0) > 0, "memory is shown")
        core.submit("p", spec("t", "deaf", timeout_s=0.2, max_retries=0))
        await world.finished("p", "t", "FAILED")
        (overrun,) = world.executor.snapshot().overruns
        assert overrun.handler == "tests.integration.host_handlers.deaf"
        await core.until(lambda: metrics.gauges[OVERRUN] == 1, "it is shown")
        await core.until(lambda: metrics.counts[REPLACED] == 1, "another host has its place")
        core.submit("q", spec("t", "where"))
        await world.finished("q", "t")
        await core.until(lambda: not world.executor.overruns, "it was ended")
        assert world.executor.snapshot().in_flight == 0, "its slot is free"


async def test_draining_lets_tasks_in_hosts_end_and_releases_the_others() -> None:
    core = FakeCore()
    async with executing(core, executor__handlers=MODULES, executor__worker__processes=1) as world:
        core.submit("p", spec("ends", "where", 0.6), spec("stays", "sleep", {"seconds": 60}))
        await core.until(lambda: world.executor.snapshot().in_flight == 2, "both run")
        hosts = [each for every in world.executor.dispatchers for each in hosts_of(every)]
        await world.executor.drain(2)
        assert core.task("p", "ends").status == "COMPLETED"
        assert core.task("p", "stays").status == "READY"
        assert [each.over for each in hosts] == [True]


PARENT = """
import asyncio, os, signal
from tests.integration.host_world import calling_handlers
async def main():
    async with calling_handlers() as world:
        print(await world.pid(), flush=True)
        world.call("deaf")
        await asyncio.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def test_a_host_ends_with_its_parent() -> None:
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", PARENT], cwd=root, capture_output=True, text=True, check=False
    )
    pid = int(ended.stdout)
    until(lambda: process_state(pid) in ("", "Z"), what="the host has ended, too")


def hosts_of(world: CallWorld | Dispatcher) -> tuple[Host, ...]:
    assert isinstance(world.runner, HostRunner)
    return world.runner.living
