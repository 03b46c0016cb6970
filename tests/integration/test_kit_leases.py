"""A worker of the kit keeps its lease while it works, and notices when it has lost it."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from holdfast_worker import AsyncTask, Client, Retry, Task, Worker
from holdfast_worker.testing import Server
from tests.busy import stretch
from tests.faults.service_process import ServiceProcess
from tests.integration.kit_world import SHORT, Link, WorkerProgram
from tests.waiting import eventually, until

LEASE_S = 1.5
STEADY_S = 2 * LEASE_S  # no busy machine holds a worker for so long
LONG_S, LONGEST_S = 2.5 * LEASE_S, 20.0  # how long handlers run that are not friendly
LONGER_LEASE_S = LONGEST_S / 4  # on a busy machine, beside threads that compute
PAUSE_S = 2.5


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # A link in between has another port, which `Host` names.
    with Server({"http.allowed_hosts": "127.0.0.1"}) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url) as client:
        yield client


async def submit(client: Client, *tasks: dict[str, Any]) -> str:
    named = [{"id": f"t{number}", **task} for number, task in enumerate(tasks)]
    return (await client.submit({"tasks": named})).plan_id


# -- handlers that are not friendly -----------------------------------------------------------


def computes(_: Task, seconds: float) -> int:
    ends_at, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < ends_at:
        rounds += sum(range(100))
    return rounds


def blocks(_: Task, seconds: float) -> None:
    time.sleep(seconds)


async def blocks_its_loop(_: AsyncTask, seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - the fault under test


def prints(_: Task, seconds: float) -> None:
    """Prints into a pipe that no one reads, until that pipe is full, and beyond."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        try:
            os.write(writer, b"x" * 65536)
        except BlockingIOError:
            time.sleep(0.01)
    os.close(reader)
    os.close(writer)


async def test_a_lease_lives_as_long_as_its_handler_whatever_it_does(
    server: Server, client: Client, *, long_faults: bool
) -> None:
    seconds, lease_s = (LONGEST_S, LONGER_LEASE_S) if long_faults else (LONG_S, LEASE_S)
    worker = Worker("busy", slots=4, url=server.url, limits=SHORT)
    handlers: tuple[Any, ...] = (computes, blocks, blocks_its_loop, prints)
    for handler in handlers:
        worker.task(handler.__name__, lease_s=lease_s)(handler)
    with worker:
        tasks = ({"kind": each.__name__, "input": seconds} for each in handlers)
        plan_id = await submit(client, *tasks)
        plan = await client.wait(plan_id)
    assert plan.status == "COMPLETED"
    assert [task.attempt for task in plan.tasks] == [1] * len(handlers)
    assert (worker.counters.completed, worker.counters.lost) == (len(handlers), 0)


def holds_the_interpreter(_: Task, seconds: float) -> int:
    """Computes in C for about so long without ever giving the interpreter lock away."""
    size, took_s = 100_000, 0.0
    while took_s < 0.02:
        size *= 2
        began = time.perf_counter()
        sum(range(size))
        took_s = time.perf_counter() - began
    return sum(range(int(size * seconds / took_s)))


async def test_a_handler_that_holds_the_interpreter_is_named_with_a_remedy(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture, *, long_faults: bool
) -> None:
    seconds = LONGEST_S if long_faults else LONG_S
    worker = Worker("held", url=server.url, limits=SHORT)
    worker.task("holds", lease_s=LEASE_S)(holds_the_interpreter)
    with worker:
        task = {"kind": "holds", "input": seconds, "max_lost_leases": 0}
        plan_id = await submit(client, task)
        await client.wait(plan_id)
    assert "run such work in a process of its own" in caplog.text


async def test_a_handler_that_ignores_its_cancellation_keeps_its_slot_alone(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = asyncio.Event()
    loop = asyncio.get_running_loop()
    worker = Worker("deaf", slots=2, url=server.url, limits=SHORT)

    @worker.task("deaf", lease_s=15)
    def deaf(task: Task) -> None:  # pyright: ignore[reportUnusedFunction]
        del task
        asyncio.run_coroutine_threadsafe(let_go.wait(), loop).result(20)

    @worker.task("quick")
    def quick(task: Task) -> str:  # pyright: ignore[reportUnusedFunction]
        return task.kind

    with worker:
        plan_id = await submit(client, {"kind": "deaf"})
        await eventually(lambda: worker.counters.claimed == 1, "the deaf handler runs")
        await client.cancel(plan_id)
        await eventually(lambda: "ignores its cancellation" in caplog.text, "it is named")
        other = await client.wait(await submit(client, {"kind": "quick"}, {"kind": "quick"}))
        assert other.status == "COMPLETED"
        let_go.set()
    assert (worker.counters.cancelled, worker.counters.completed) == (1, 2)


async def test_the_time_between_attempts_and_the_last_error_come_from_the_handler(
    server: Server, client: Client
) -> None:
    worker = Worker("limited", url=server.url, limits=SHORT)
    began: list[float] = []

    @worker.task("limited")
    async def limited(task: AsyncTask) -> str:  # pyright: ignore[reportUnusedFunction]
        began.append(time.monotonic())
        if task.retry < 2:
            raise Retry(after_s=0.3, error_type="rate_limited")
        return "done"

    with worker:
        plan = await client.wait(await submit(client, {"kind": "limited"}))
    assert plan.status == "COMPLETED"
    assert all(later - earlier >= 0.29 for earlier, later in pairwise(began))
    assert (worker.counters.failed, worker.counters.completed) == (2, 1)


# -- losing a lease ---------------------------------------------------------------------------


async def test_a_worker_that_was_frozen_past_its_lease_loses_and_the_other_one_wins(
    server: Server, client: Client
) -> None:
    with WorkerProgram(server.url, "frozen", STEADY_S) as frozen:
        plan_id = await submit(client, {"kind": "waits", "input": {"seconds": 4.0}})
        frozen.said("began")
        frozen.process.send_signal(signal.SIGSTOP)
        with WorkerProgram(server.url, "living", STEADY_S) as living:
            living.said("began t0")
            frozen.process.send_signal(signal.SIGCONT)
            stopped = frozen.said("stopped t0 1")
            assert stopped.split()[-1] in ("fenced", "lease_lost")
            plan = await client.wait(plan_id)
            living.process.send_signal(signal.SIGTERM)
            assert living.ended()["completed"] == 1
        frozen.process.send_signal(signal.SIGTERM)
        counters = frozen.ended()
    task = await client.task(plan_id, "t0")
    assert (counters["completed"], counters["lost"]) == (0, task.lost)
    assert (plan.status, task.output) == ("COMPLETED", f"attempt {task.attempt}")


async def test_a_worker_whose_network_is_cut_stops_in_time_and_goes_on_afterwards(
    server: Server, client: Client
) -> None:
    worker = Worker("cut", slots=2, limits=SHORT)
    stopped: list[tuple[str | None, float]] = []
    began: list[int] = []

    @worker.task("waits", lease_s=LEASE_S)
    def waits(task: Task) -> str:
        began.append(task.attempt)
        if task.cancelled.wait(2.0):
            stopped.append((task.cancelled.reason, time.monotonic()))
            task.raise_if_cancelled()
        return "done"

    with Link(server.url) as link:
        worker = Worker("cut", slots=2, url=link.url, limits=SHORT)
        worker.include(waits)
        with worker:
            plan_id = await submit(client, {"kind": "waits"}, {"kind": "waits"})
            await eventually(lambda: len(began) == 2, "both run")
            link.order("cut")
            cut_at = time.monotonic()
            await eventually(lambda: len(stopped) == 2, "both are stopped")
            link.order("open")
            plan = await client.wait(plan_id)
    assert plan.status == "COMPLETED"
    patience = stretch()
    for reason, at in stopped:
        assert reason == "lease_lost"
        assert at - cut_at < LEASE_S * 0.8 * patience, "it stops before another may begin"
    counters = worker.counters
    assert counters.completed == 2
    assert counters.claimed == counters.completed + counters.released + counters.lost


@pytest.mark.timeout(180)  # the server is started four times
async def test_results_wait_for_a_server_that_is_killed_and_none_is_lost() -> None:
    with Server() as server:
        worker = Worker("patient", slots=8, url=server.url, limits=SHORT)
        ran: list[str] = []

        @worker.task("short", lease_s=20)
        async def short(task: AsyncTask) -> str:  # pyright: ignore[reportUnusedFunction]
            ran.append(task.task_id)
            await asyncio.sleep(0.05)
            return task.task_id

        async with Client(server.url) as own:
            plan_id = await submit(own, *({"kind": "short"} for _ in range(150)))
            with worker:
                for share in (20, 70, 120):
                    await eventually(lambda share=share: len(ran) >= share, f"{share} ran")
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                plan = await own.wait(plan_id)
        assert plan.status == "COMPLETED"
        assert {task.output for task in plan.tasks} == {f"t{number}" for number in range(150)}
        assert worker.counters.completed == 150
        assert worker.counters.lost == 0
        assert worker.counters.retried > 0
        assert len(ran) < 150 + 2 * 8 * 3  # a claim whose answer was lost is not run


async def test_a_log_that_pauses_delays_results_and_loses_none(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path / "data").start()
    worker = Worker("patient", slots=4, url=service.url, limits=SHORT)

    @worker.task("short", lease_s=15)
    async def short(task: AsyncTask) -> str:  # pyright: ignore[reportUnusedFunction]
        await asyncio.sleep(0.02)
        return task.task_id

    try:
        async with Client(service.url) as client:
            plan_id = await submit(client, *({"kind": "short"} for _ in range(40)))
            with worker:
                await eventually(lambda: worker.counters.completed >= 5, "some are completed")
                nats = service.nats_pid()
                assert nats is not None
                os.kill(nats, signal.SIGSTOP)
                await asyncio.sleep(PAUSE_S)  # the length of the fault
                os.kill(nats, signal.SIGCONT)
                plan = await client.wait(plan_id)
    finally:
        service.stop()
    assert plan.status == "COMPLETED"
    assert [task.attempt for task in plan.tasks] == [1] * 40
    assert (worker.counters.completed, worker.counters.lost) == (40, 0)


# -- the end of a worker ----------------------------------------------------------------------


async def test_at_sigterm_a_worker_lets_tasks_end_and_gives_the_others_back(
    server: Server, client: Client
) -> None:
    with WorkerProgram(server.url, "ending", 20) as ending:
        plan_id = await submit(
            client,
            {"kind": "waits", "input": {"seconds": 0.6}},
            {"kind": "waits", "input": {"seconds": 30}},
        )
        ending.said("began t0")
        ending.said("began t1")
        ending.process.send_signal(signal.SIGTERM)
        counters = ending.ended()
        assert ending.count("stopped t1 1 draining") == 1
    assert (counters["completed"], counters["released"], counters["lost"]) == (1, 1, 0)
    task = await client.task(plan_id, "t1")
    assert (task.status, task.retry, task.lost) == ("READY", 0, 0)
    await client.cancel(plan_id)


@pytest.mark.parametrize("obeys", [True, False])
async def test_tokens_of_an_attempt_that_is_given_back_are_counted(
    server: Server, client: Client, *, obeys: bool
) -> None:
    worker = Worker("thrifty", slots=1, url=server.url, limits=SHORT)
    spent, over = threading.Event(), threading.Event()

    @worker.task("waits")
    def waits(task: Task) -> None:
        task.token_usage("small", input=30, output=4)
        spent.set()
        task.cancelled.wait(30)
        if obeys:
            task.raise_if_cancelled()
        over.wait(30)

    worker.start()
    plan_id = await submit(client, {"kind": "waits"})
    await asyncio.to_thread(spent.wait, 30)
    await asyncio.to_thread(worker.stop, 0)
    over.set()
    (execution,) = (await client.task(plan_id, "t0")).executions
    assert (execution["status"], execution["model_name"]) == ("released", "small")
    assert execution["token_usage"]["total_tokens"] == 34
    await client.cancel(plan_id)


async def test_a_worker_that_the_server_refuses_says_why(server: Server) -> None:
    worker = Worker("refused", url=f"{server.url}/no-such-place", limits=SHORT)
    worker.task("x")(lambda _: None)
    logging.getLogger("holdfast_worker").setLevel(logging.INFO)
    service = worker.start()
    until(service.over.is_set, 10, "it has given up")
    with pytest.raises(Exception, match="not_found"):
        worker.stop()
