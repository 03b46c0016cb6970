"""What really goes wrong has the right error type: real servers, sockets, processes and limits."""

import asyncio
import json
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import msgspec
import pytest
import requests
import structlog
from msgspec import Raw

from holdfast_worker.cancellation import Cancellation
from holdfast_worker.failures import MESSAGE_CHARACTERS
from holdfast_worker.progress import Shown
from holdfast_worker.task import Assignment
from service.executor.attempts.endings import Failure
from service.executor.attempts.failures import classify
from service.executor.handlers import TaskRun, handler
from service.executor.limits import LIMITS, ExecutorLimits
from service.executor.running.processes import ProcessWorkers
from tests.integration import error_handlers
from tests.integration.web_handlers.web_world import Server, answer, execution, failure

PATIENCE_S = 40.0
ANSWERED_S, SILENT_S = 20.0, 0.3
Call = Callable[..., object]
Expected = tuple[str, bool, float | None]


@pytest.fixture
def other_side(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def nothing_is_printed() -> Iterator[None]:
    """Drawing a traceback for a terminal takes seconds."""
    with structlog.testing.capture_logs():
        yield


def ending_of(work: Callable[[], object]) -> Failure:
    """How an attempt ends whose handler does ``work``."""
    return failure(execution(handler("trouble")(lambda _: work()), None)[0])


def told(failed: Failure) -> Expected:
    return failed.error_type, failed.retryable, failed.retry_in_s


# -- other sides that misbehave ---------------------------------------------------------------


def by_httpx(url: str, within_s: float = ANSWERED_S) -> object:
    return httpx.get(url, timeout=within_s).raise_for_status().json()


def by_urllib(url: str, within_s: float = ANSWERED_S) -> object:
    with urllib.request.urlopen(url, timeout=within_s) as response:  # noqa: S310
        return json.loads(response.read())


def by_requests(url: str, within_s: float = ANSWERED_S) -> object:
    response = requests.get(url, timeout=within_s)
    response.raise_for_status()
    return response.json()


async def _get(url: str, within_s: float) -> None:
    async with httpx.AsyncClient(timeout=within_s) as client, asyncio.TaskGroup() as group:
        group.create_task(_decoded(client, url))


async def _decoded(client: httpx.AsyncClient, url: str) -> object:
    return msgspec.json.decode((await client.get(url)).raise_for_status().content)


def in_a_group(url: str, within_s: float = ANSWERED_S) -> object:
    return asyncio.run(_get(url, within_s))


def wrapped(url: str, within_s: float = ANSWERED_S) -> object:
    try:
        return by_httpx(url, within_s)
    except (httpx.HTTPError, ValueError) as error:
        raise RuntimeError("the model could not be asked") from error


CLIENTS = [by_httpx, by_urllib, by_requests, in_a_group, wrapped]
AGAIN = {"Retry-After": "7"}


@pytest.mark.parametrize("call", CLIENTS)
@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        ("429 Too Many Requests", AGAIN, ("rate_limited", True, 7.0)),
        ("429 Too Many Requests", {}, ("rate_limited", True, None)),
        ("503 Service Unavailable", AGAIN, ("http_error", True, 7.0)),
        ("500 Internal Server Error", {}, ("http_error", True, None)),
        ("404 Not Found", AGAIN, ("http_error", False, None)),
        ("200 OK", {}, ("bad_response", True, None)),
    ],
)
def test_an_answer_that_is_no_success(
    other_side: Server, call: Call, status: str, headers: dict[str, str], expected: Expected
) -> None:
    other_side.answers(answer(status, b"{not json", headers=headers))
    assert told(ending_of(lambda: call(other_side.url))) == expected


@pytest.mark.parametrize("call", CLIENTS)
def test_a_connection_that_is_not_accepted(call: Call) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        assert told(ending_of(lambda: call(url))) == ("connection_error", True, None)


@pytest.mark.parametrize("call", CLIENTS)
def test_a_name_that_does_not_exist(call: Call) -> None:
    failed = ending_of(lambda: call("http://no-such-host.invalid/"))
    assert told(failed) == ("connection_error", True, None)


@pytest.mark.parametrize("call", CLIENTS)
def test_an_answer_that_is_cut_off(other_side: Server, call: Call) -> None:
    other_side.answers(answer(body=b"half", claimed=100))
    failed = ending_of(lambda: call(other_side.url))
    assert told(failed) == ("connection_error", True, None)


@pytest.mark.parametrize("call", CLIENTS)
def test_silence(other_side: Server, call: Call) -> None:
    other_side.answers(lambda _: other_side.release.wait(PATIENCE_S))
    assert told(ending_of(lambda: call(other_side.url, SILENT_S))) == ("timeout", True, None)


@pytest.mark.parametrize("call", CLIENTS)
def test_a_connection_that_is_reset(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"

        def reset() -> None:
            taken, _ = listening.accept()
            taken.recv(65536)
            # Closed with a linger of 0 seconds, a socket says RST instead of goodbye.
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            taken.close()

        async def both() -> Failure:
            resetting = asyncio.to_thread(reset)
            failed, _ = await asyncio.gather(
                asyncio.to_thread(ending_of, lambda: call(url)), resetting
            )
            return failed

        assert told(asyncio.run(both())) == ("connection_error", True, None)


# -- this side --------------------------------------------------------------------------------


def run(*program: str, timeout_s: float = PATIENCE_S) -> None:
    subprocess.run([sys.executable, "-c", *program], check=True, timeout=timeout_s)


async def _expires() -> None:
    async with asyncio.timeout(0.01):
        await asyncio.sleep(PATIENCE_S)


async def _cancels_itself() -> None:
    asyncio.current_task().cancel()  # pyright: ignore[reportOptionalMemberAccess]
    await asyncio.sleep(PATIENCE_S)


def buggy_wrapper() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("mine") from error


def late_cleanup() -> None:
    try:
        asyncio.run(_expires())
    except TimeoutError:
        {}["the clean-up has a bug"]  # not raised *from* the time-out: the bug is what counts


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda: run("raise SystemExit(3)"), ("non_zero_exit", True)),
        (lambda: run("import time; time.sleep(60)", timeout_s=0.1), ("timeout", True)),
        (lambda: asyncio.run(_expires()), ("timeout", True)),
        (lambda: asyncio.run(_cancels_itself()), ("cancelled", True)),
        (lambda: bytearray(2**62), ("out_of_memory", True)),
        (
            lambda: socket.create_connection(("no-such-host.invalid", 80)),
            ("connection_error", True),
        ),
        (lambda: httpx.get("ftp://127.0.0.1/"), ("bad_input", False)),
        (lambda: msgspec.convert({"a": "b"}, dict[str, int]), ("bad_input", False)),
        (buggy_wrapper, ("handler_error", True)),
        (late_cleanup, ("handler_error", True)),
        (lambda: open("/no/such/file"), ("handler_error", True)),  # noqa: PTH123, SIM115
    ],
)
def test_trouble_of_ones_own(work: Callable[[], object], expected: tuple[str, bool]) -> None:
    assert told(ending_of(work))[:2] == expected


def test_a_chain_that_is_a_circle_ends() -> None:
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert classify(one) == ("handler_error", True)


@pytest.mark.parametrize(
    ("kind", "expected", "words"),
    [
        (error_handlers.hungry, "out_of_memory", "MemoryError"),
        (error_handlers.leaves, "process_died", "code 3"),
    ],
)
def test_trouble_of_a_process(kind: Any, expected: str, words: str) -> None:
    failed, _ = in_a_process(kind)
    assert (failed.error_type, failed.retryable) == (expected, True)
    assert words in failed.error_message


def in_a_process(
    kind: Any, given: object = None, limits: ExecutorLimits = LIMITS, **dependencies: Raw
) -> tuple[Failure, list[int]]:
    """How the handler fails, and the ids of processes that it named and that still run."""
    shown: list[int] = []
    workers = ProcessWorkers("me", limits)
    work = Assignment(
        plan_id="p", task_id="t", kind=kind.kind, type="worker", attempt=1, fencing_token=1,
        retry=0, timeout_s=60, input=Raw(msgspec.json.encode(given)), context=Raw(b"{}"),
        dependencies=dependencies, feedback=Raw(b"null"),
    )  # fmt: skip

    def show(data: Shown) -> None:
        assert isinstance(data, Raw)
        shown.append(msgspec.json.decode(data))

    def keep(*_: object) -> NoReturn:
        raise AssertionError("none of these handlers has a checkpoint")

    try:
        failed = workers.execute(kind, work, Cancellation(), show, keep)
        running = [process for process in shown if Path(f"/proc/{process}").exists()]
    finally:
        workers.close()
    assert isinstance(failed, Failure)
    return failed, running


@pytest.mark.parametrize("kind", [error_handlers.garbles, error_handlers.announces_too_much])
def test_a_process_whose_answer_cannot_be_read_is_ended(kind: Any) -> None:
    failed, running = in_a_process(kind)
    assert failed.error_type == "process_died"
    assert "cannot be read" in failed.error_message
    assert not running


def test_what_is_too_large_for_a_process_is_named_and_costs_no_process() -> None:
    small = ExecutorLimits(frame_bytes=100_000)
    much = Raw(b'"%b"' % (b"x" * 100_000))
    failed, _ = in_a_process(error_handlers.returns_much, {"bytes": 1}, small, before=much)
    assert (failed.error_type, failed.retryable) == ("too_large", False)
    assert "input, context and dependencies" in failed.error_message
    failed, running = in_a_process(error_handlers.returns_much, {"bytes": 100_000}, small)
    assert (failed.error_type, failed.retryable) == ("too_large", False)
    assert "returned" in failed.error_message
    assert len(running) == 1


def test_a_long_error_of_a_process_is_reported_at_once() -> None:
    began = time.monotonic()
    failed, running = in_a_process(error_handlers.long_error)
    assert time.monotonic() - began < PATIENCE_S / 2
    assert failed.error_type == "handler_error"
    assert len(failed.error_message) <= MESSAGE_CHARACTERS
    assert len(running) == 1


def test_a_type_that_is_not_in_the_set_is_other_and_stays_readable() -> None:
    @handler("own_words")
    def own_words(task: TaskRun) -> None:
        from service.executor.handlers import TaskFailed  # noqa: PLC0415

        raise TaskFailed(task.input, "the tank is empty")

    failed = failure(execution(own_words, "out_of_fuel")[0])
    assert (failed.error_type, failed.error_message) == ("other", "out_of_fuel: the tank is empty")
