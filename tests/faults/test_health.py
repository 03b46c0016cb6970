"""Readiness is true within two seconds of a change, in both directions, and answers at once."""

import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from service.app import Instance
from service.core.bridge import Bridge
from service.runtime.data_folder import READ_MODELS
from tests.busy import HELD, stretch
from tests.conftest import PrivateServer
from tests.faults.report import Report
from tests.faults.service_process import ServiceProcess, until
from tests.integration.http_world import serving

pytestmark = pytest.mark.faults

TRUE_WITHIN_S = 2.0
HARD_S = 3.0
ANSWERS_WITHIN_S = 0.5
PATIENCE_S = 15.0
FILE_BYTES = 4096  # a write that makes a file longer than this fails: as on a full disk

Start = Callable[..., ServiceProcess]
World = tuple[Instance, httpx.AsyncClient]


class Watcher:
    """Asks an instance how it is, and notes how long the slowest answer took."""

    def __init__(self, service: ServiceProcess) -> None:
        self._client = httpx.Client(base_url=service.url, timeout=20)
        self.slowest_s = 0.0

    def failing(self) -> list[str]:
        """The checks that fail; status is asked for, too, and must answer."""
        began = time.monotonic()
        answer = self._client.get("/readyz")
        took_s = time.monotonic() - began
        began = time.monotonic()
        self._client.get("/v1/ops/status").raise_for_status()
        self.slowest_s = max(self.slowest_s, took_s, time.monotonic() - began)
        failing = answer.json()["failing"]
        assert (answer.status_code == httpx.codes.OK) == (not failing)
        return failing

    def time_until(self, name: str, *, fails: bool) -> float:
        """How long it takes until the check fails, or until nothing does."""
        began = time.monotonic()
        until(
            lambda: name in self.failing() if fails else not self.failing(),
            PATIENCE_S,
            f"{name} {'fails' if fails else 'is well'}",
        )
        return time.monotonic() - began

    def close(self) -> None:
        self._client.close()


@contextmanager
def killed(nats: PrivateServer, _: ServiceProcess) -> Iterator[None]:
    nats.kill()
    yield
    nats.restart()


@contextmanager
def paused(nats: PrivateServer, _: ServiceProcess) -> Iterator[None]:
    nats.pause()
    try:
        yield
    finally:
        nats.resume()


@contextmanager
def locked(_: PrivateServer, service: ServiceProcess) -> Iterator[None]:
    """Another process's transaction, as a backup tool or a curious operator may leave one open."""
    connection = sqlite3.connect(service.data_dir / READ_MODELS, timeout=5, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@contextmanager
def full(_: PrivateServer, service: ServiceProcess) -> Iterator[None]:
    """No file of the service may grow, as on a full disk."""
    process = psutil.Process(service.pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (FILE_BYTES, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, before)


@pytest.mark.timeout(180)
def test_a_silent_log_and_a_locked_database_are_reported_in_time_without_writes(
    start_service: Start, private_nats: PrivateServer, report: Report
) -> None:
    service = start_service(nats_url=private_nats.url, roles="api")
    watcher = Watcher(service)
    for name, fault in (
        ("log", killed), ("log", paused), ("database", locked), ("database", full),
    ):  # fmt: skip
        watcher.slowest_s = 0.0
        with fault(private_nats, service):
            told_s = watcher.time_until(name, fails=True)
            _reads_go_on(service)
        cleared_s = watcher.time_until(name, fails=False)
        report.add(
            "health",
            fault.__name__,
            told_s=told_s,
            cleared_s=cleared_s,
            slowest_answer_s=watcher.slowest_s,
            in_time=max(told_s, cleared_s) <= TRUE_WITHIN_S,
        )
        longer = stretch()
        assert told_s <= HARD_S * longer, fault.__name__
        assert cleared_s <= HARD_S * longer, fault.__name__
        assert watcher.slowest_s <= ANSWERS_WITHIN_S * longer, fault.__name__
    watcher.close()


def _reads_go_on(service: ServiceProcess) -> None:
    for path in ("/v1/plans", "/v1/tasks", "/v1/executions", "/metrics"):
        assert httpx.get(f"{service.url}{path}", timeout=20).status_code == httpx.codes.OK, path


# -- inside one process -----------------------------------------------------------------------


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path, scheduling__daemon__pool_size=1) as world:
        yield world


async def time_until(client: httpx.AsyncClient, *names: str) -> float:
    """How long it takes until just these checks fail."""
    began = time.monotonic()
    while (failing := (await client.get("/readyz")).json()["failing"]) != list(names):
        assert time.monotonic() - began < PATIENCE_S, (failing, names)
    return time.monotonic() - began


async def test_a_daemon_that_holds_its_thread_is_reported_with_its_loop_until_it_returns(
    world: World, report: Report
) -> None:
    instance, client = world
    schedulers = instance.schedulers
    assert schedulers is not None
    await time_until(client)
    let_go, begun = threading.Event(), threading.Event()

    async def hold(_: Bridge) -> None:
        begun.set()
        let_go.wait(PATIENCE_S)

    (routine,) = (each for each in schedulers.routines if each.daemon.name == "plan_closer")
    routine.daemon = msgspec.structs.replace(routine.daemon, step=hold)
    try:
        while not begun.is_set():
            await client.get("/healthz")
        told_s = await time_until(client, "daemons", "loops")
        (check,) = (
            each for each in (await client.get("/readyz")).json()["checks"]
            if each["name"] == "daemons"
        )  # fmt: skip
        assert check["detail"].startswith("plan_closer: holds its thread"), "and no other daemon"
        diagnosis = (await client.get("/v1/ops/doctor")).json()
        found = {finding["code"]: finding for finding in diagnosis["findings"]}
        assert found.keys() == {"DaemonLate", "LoopLagHigh"}
        late, lag = found["DaemonLate"], found["LoopLagHigh"]
        assert (late["severity"], list(late["evidence"])) == ("critical", ["plan_closer"])
        assert "plan_closer: holds its thread" in late["summary"]
        assert list(lag["evidence"]) == ["daemon"]
        assert lag["evidence"]["daemon"]["samples"] > 0, "it is counted under the same name"
    finally:
        let_go.set()
    cleared_s = await time_until(client)
    report.add("health", "a daemon holds its thread", told_s=told_s, cleared_s=cleared_s)
    assert max(told_s, cleared_s) <= HARD_S * stretch()


async def test_a_dead_loop_of_the_executor_is_reported(tmp_path: Path, report: Report) -> None:
    async with serving(tmp_path, executor__worker__processes=0) as (instance, client):
        assert instance.executor is not None
        await time_until(client)
        instance.executor.threads[0].let_go()
        began = time.monotonic()
        while "executor" not in (answer := (await client.get("/readyz")).json())["failing"]:
            assert time.monotonic() - began < PATIENCE_S, answer
        told_s = time.monotonic() - began
        diagnosis = (await client.get("/v1/ops/doctor")).json()
    (finding,) = [each for each in diagnosis["findings"] if each["code"] not in HELD]
    assert (finding["code"], list(finding["evidence"])) == ("NotReady", ["executor"])
    report.add("health", "a loop of the executor is dead", told_s=told_s)
    assert told_s <= HARD_S * stretch()


async def test_each_scheduler_has_its_threads_and_handlers_run_in_worker_threads_only(
    tmp_path: Path,
) -> None:
    names: dict[str, Any] = {
        "scheduling__task_executor__pool_size": 2,
        "scheduling__daemon__pool_size": 3,
        "executor__worker__core_size": 4,
        "executor__worker__processes": 0,
        "executor__handlers": ["tests.faults.pool_handlers"],
    }
    async with serving(tmp_path, **names) as (instance, client):
        tasks = [
            {"id": f"{kind}-{n}", "kind": kind}
            for kind in ("where", "async_where")
            for n in range(8)
        ]
        await client.post("/v1/plans", json={"id": "p", "tasks": tasks})
        while not (await client.get("/v1/plans/p")).json()["finished_at"]:
            pass
        shown = (await client.get("/v1/plans/p")).json()["tasks"]
        ran_in = {task["output"] for task in shown}
        assert ran_in <= {f"worker-{loop}-{n}" for loop in range(2) for n in range(2)}
        running = {thread.name for thread in threading.enumerate()}
        assert running >= {"heartbeats", "executor-0", "executor-1"}
        # A thread that a daemon holds, on a busy machine any, is replaced until it is free.
        made = 3 + instance.schedulers.replaced
        daemons = {name for name in running if name.startswith("daemons-")} - {"daemons-guard"}
        assert daemons <= {f"daemons-{n}" for n in range(made)}
        assert len(daemons) >= 3
        assert "daemons-guard" in running
        loops = {loop["name"] for loop in (await client.get("/v1/ops/status")).json()["loops"]}
        assert loops >= {"api", "heartbeats", "executor-0", "executor-1"}
        assert len({name for name in loops if name.startswith("daemons-")}) >= 3
