"""The process: it ends in order when asked, and leaves nothing behind however it ends."""

import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import psutil
import pytest

from tests.faults.log_witness import attempts_in, read_log
from tests.faults.service_process import ServiceProcess, is_gone, until

pytestmark = pytest.mark.faults

SLEEP = '{"sleep": {"argv": ["sleep", "{seconds}"]}}'
DRAIN_S = 10.0  # executor.drain_s

Start = Callable[..., ServiceProcess]

TASKS: list[dict[str, Any]] = [
    {"id": "short", "kind": "sleep", "input": {"seconds": 2}},
    {"id": "long", "kind": "sleep", "input": {"seconds": 600}, "timeout_s": 900},
    {
        "id": "program",
        "kind": "command",
        "input": {"command": "sleep", "parameters": {"seconds": "600"}},
        "timeout_s": 900,
    },
]


def task(service: ServiceProcess, name: str) -> dict[str, Any]:
    return httpx.get(f"{service.url}/v1/plans/p/tasks/{name}").raise_for_status().json()


def begin_work(service: ServiceProcess) -> None:
    """Three tasks of the executor are under way, one of them a program."""
    httpx.post(f"{service.url}/v1/plans", json={"id": "p", "tasks": TASKS}).raise_for_status()

    def is_under_way() -> bool:
        started = [task(service, each["id"])["executions"] for each in TASKS]
        return all(each and each[0]["started_at"] for each in started)

    until(is_under_way, 20, "every task has started")
    until(lambda: "sleep" in names_below(service.pid), 10, "the program runs")


def below(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def names_below(pid: int) -> set[str]:
    names: set[str] = set()
    for child in psutil.Process(pid).children(recursive=True):
        try:
            names.add(child.name())
        except psutil.NoSuchProcess:
            continue
    return names


@pytest.mark.timeout(90)
def test_asked_to_end_it_lets_tasks_finish_or_gives_them_back_and_leaves_no_child(
    start_service: Start,
) -> None:
    service = start_service(executor__command=SLEEP)
    begin_work(service)
    children = below(service.pid)
    assert {"nats-server", "sleep"} <= names_below(service.pid)
    began = time.monotonic()
    assert service.terminate(DRAIN_S + 15) == 0
    print(f"drained in {time.monotonic() - began:.2f} s")  # noqa: T201
    assert [pid for pid in children if not is_gone(pid)] == []
    assert "Traceback" not in service.output
    # Without an executor, so that it shows what was left behind.
    again = start_service(service.data_dir, roles="api,daemons")
    assert task(again, "short")["status"] == "COMPLETED"
    for name in ("long", "program"):
        left = task(again, name)
        assert (left["status"], left["retry"], left["lost"]) == ("READY", 0, 0)
        assert [each["status"] for each in left["executions"]] == ["released"]


def test_ctrl_c_ends_an_idle_instance_at_once(start_service: Start) -> None:
    service = start_service(executor__poll_interval_s="60")  # its claim waits for 30 s at a time
    children = below(service.pid)
    service.send(signal.SIGINT)
    assert service.wait() == 0
    assert all(map(is_gone, children))
    assert "Traceback" not in service.output


@pytest.mark.timeout(90)
def test_killed_it_leaves_neither_server_nor_program_and_the_next_life_takes_over(
    start_service: Start,
) -> None:
    quick = {"executor__claim__lease_s": "2", "executor__claim__heartbeat_s": "0.5"}
    service = start_service(executor__command=SLEEP, **quick)
    begin_work(service)
    children = below(service.pid)
    assert {"nats-server", "sleep"} <= names_below(service.pid)
    service.kill()
    until(lambda: all(map(is_gone, children)), 10, "every child is gone")
    service.start()
    until(lambda: task(service, "short")["status"] == "COMPLETED", 40, "the lease was taken over")
    short = task(service, "short")
    assert short["lost"] == 0  # the next life released what the dead process held
    assert [each["status"] for each in short["executions"]] == ["released", "completed"]
    attempts_in(read_log(service.nats_url))
    service.kill()  # nothing is drained


def test_a_second_process_on_the_same_folder_gets_an_error_that_names_the_holder(
    start_service: Start, new_service: Start
) -> None:
    service = start_service(roles="api")
    second = new_service(service.data_dir)
    second.launch()
    assert second.wait() == 3
    said = second.output
    assert str(service.pid) in said
    assert service.url in said
    assert "HOLDFAST_DATA_DIR" in said
    assert "Traceback" not in said
    assert service.readiness() == (200, [])


def test_more_streams_than_a_login_may_open_files_leave_the_api_reachable(
    new_service: Start,
) -> None:
    """A login's soft limit is often 1,024 files; the configured limit of streams comes first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    service = new_service(roles="api", sse__max_connections="300")
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        service.launch_anew()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    service.await_ready()
    host, port = service.url.removeprefix("http://").split(":")
    with ExitStack() as streams, httpx.Client(base_url=service.url) as client:
        for _ in range(300):
            each = streams.enter_context(socket.create_connection((host, int(port)), timeout=20))
            each.sendall(f"GET /v1/events HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            assert each.recv(1024).startswith(b"HTTP/1.1 200")
        refused = client.get("/v1/events")
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert client.get("/healthz").status_code == httpx.codes.OK


def test_asked_to_end_while_it_still_waits_for_its_log_it_ends(
    new_service: Start,
) -> None:
    service = new_service(nats_url="nats://127.0.0.1:1")
    service.launch()
    until((service.data_dir / "holdfast.lock").exists, 20, "it is on its way")
    began = time.monotonic()
    service.send(signal.SIGTERM)
    assert service.wait(10) == 0
    print(f"ended {time.monotonic() - began:.2f} s after the signal")  # noqa: T201
    assert "Traceback" not in service.output


@pytest.mark.timeout(90)
def test_an_embedded_server_that_dies_comes_back_under_the_same_service(
    start_service: Start,
) -> None:
    service = start_service()
    url = service.url
    for round_ in range(3):
        died = service.nats_pid()
        assert died is not None
        os.kill(died, signal.SIGKILL)
        began = time.monotonic()
        plan = {"id": f"p{round_}", "tasks": [{"id": "t", "kind": "echo"}]}

        def is_taken(plan: dict[str, Any] = plan) -> bool:
            answer = httpx.post(f"{url}/v1/plans", json=plan, timeout=20)
            assert answer.status_code in (200, 201, 503), answer.text
            return answer.is_success

        until(is_taken, 15, "a plan is accepted again")
        print(f"accepted after {time.monotonic() - began:.2f} s")  # noqa: T201
        until(
            lambda plan=plan: httpx.get(f"{url}/v1/plans/{plan['id']}").json()["finished_at"],
            20, "the plan ends",
        )  # fmt: skip
        assert service.nats_pid() not in (None, died)
    assert service.exit_code is None
