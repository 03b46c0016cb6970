"""The process serves whatever its streams, terminal and limits are, and ends when it should."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest

from service.sample import COUNT, REPORT, SUM_UP
from tests.faults.service_process import ROOT, ServiceProcess, environment, is_gone, until

pytestmark = pytest.mark.faults

NewService = Callable[..., ServiceProcess]

# How a line on a terminal begins: in the story, in the log, and what is said to the person.
# A line of level error: a busy machine has held a loop.
WHOLE = re.compile(
    r"  \d\d:\d\d:\d\d\.\d{3}  +\d+  (plan|task)\.\w"
    r"|\d\d:\d\d:\d\d\.\d{3} \[(debug|info|warning|error) +\] "
    r"|Holdfast serves |The log is empty|Look at it: | {13}curl http|Ctrl-C ends it"
    r"|  \d\d:\d\d:\d\d\.\d{3}  +\d+  plan ended {7}p: COMPLETED in \d+\.\d s, 1 task$"
)
SAMPLE_COMMANDS = json.dumps(
    {
        COUNT: {"argv": [REPORT, "count", "{file}"]},
        SUM_UP: {"argv": [REPORT, "{what}"]},
    }
)


def children_of(service: ServiceProcess) -> list[int]:
    return [child.pid for child in psutil.Process(service.pid).children(recursive=True)]


def is_submitted(service: ServiceProcess, plan_id: str, kind: str = "echo") -> bool:
    task = {"id": "t", "kind": kind, "input": {"seconds": 600}}
    answer = httpx.post(f"{service.url}/v1/plans", json={"id": plan_id, "tasks": [task]})
    return answer.is_success


def ends_within(service: ServiceProcess, seconds: float, end: Callable[[], None]) -> int:
    """Its exit code after ``end``; none of the children that it had before is left."""
    children = children_of(service)
    end()
    code = service.wait(seconds)
    until(lambda: all(map(is_gone, children)), what="its children are gone")
    return code


# -- standard streams -------------------------------------------------------------------------


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_closed_and_full_streams_change_nothing(new_service: NewService, redirection: str) -> None:
    service = new_service()
    service.launch_anew(f'exec "$@" {redirection}')
    service.await_ready()
    assert is_submitted(service, "p")
    assert service.terminate() == 0


def test_a_reader_that_leaves_after_one_line_ends_nothing(new_service: NewService) -> None:
    """As in `holdfast serve | head -1`, while the sample's story is being printed."""
    service = new_service(sample__enabled="true", executor__command=SAMPLE_COMMANDS)
    reading, writing = os.pipe()
    service.launch_anew(stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as output:
        assert b"Holdfast serves" in output.readline()
    service.await_ready()
    assert is_submitted(service, "p")
    until(lambda: has_finished(service, "p"), 20, "the tasks are done")
    assert service.terminate() == 0
    assert "Traceback" not in service.output


def test_a_terminal_gets_whole_readable_lines_and_the_pages_address(
    new_service: NewService,
) -> None:
    """Story and log share one terminal; the story's lines and the log's stay apart."""
    service = new_service(
        sample__enabled="true", executor__command=SAMPLE_COMMANDS, log__level="debug"
    )  # the lowest level, for as many lines as there can be
    terminal, theirs = pty.openpty()
    service.launch_anew('exec "$@" 2>&1', stdout=theirs)
    os.close(theirs)
    said = b""
    asked = False
    with os.fdopen(terminal, "rb", buffering=0) as output:
        while b"plan ended" not in said:
            piece = output.read(65_536)
            assert piece, said.decode()
            said += piece
            if b"Ctrl-C ends it" in said and not asked:
                asked = is_submitted(service, "p")
        lines = re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).splitlines()
        hello = next(line for line in lines if line.startswith("Holdfast serves http://"))
        assert f" {service.url} (open it in a browser)," in hello
        assert [line for line in lines if line and not WHOLE.match(line)] == []
        shown = [line for line in lines if not re.search(r"\[debug |\] loop_(held|free) ", line)]
        assert shown[0] == hello, "the address of the page comes first"
        service.kill()


def has_finished(service: ServiceProcess, plan_id: str) -> bool:
    return bool(httpx.get(f"{service.url}/v1/plans/{plan_id}").json()["finished_at"])


def test_a_command_whose_output_cannot_be_written_fails_in_one_line() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-m", "service", "check-config"],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["holdfast: [Errno 28] No space left on device"]


# -- signals ----------------------------------------------------------------------------------


def test_a_second_ctrl_c_ends_at_once_what_the_first_would_let_finish(
    new_service: NewService,
) -> None:
    service = new_service().start()
    assert is_submitted(service, "p", "sleep")
    until(lambda: is_running(service, "p"), 20, "the task runs")
    service.send(signal.SIGINT)
    until(lambda: "Ctrl-C again ends at once" in service.output, what="it says what it waits for")
    assert ends_within(service, 3, lambda: service.send(signal.SIGINT)) == -signal.SIGINT


def is_running(service: ServiceProcess, plan_id: str) -> bool:
    task = httpx.get(f"{service.url}/v1/plans/{plan_id}/tasks/t").json()
    return task["status"] == "RUNNING"


def test_sigint_ends_a_service_that_was_started_with_sigint_ignored(
    new_service: NewService,
) -> None:
    """Shells start the background jobs of scripts so."""
    service = new_service(roles="api")
    service.launch_anew("trap '' INT; exec \"$@\"")
    service.await_ready()
    assert ends_within(service, 10, lambda: service.send(signal.SIGINT)) == 0


def test_sigint_ends_a_command_that_was_started_with_sigint_ignored() -> None:
    command = [sys.executable, "-m", "service", "events", "--url", "http://127.0.0.1:1"]
    process = subprocess.Popen(
        ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command],
        env=environment(),
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline()  # it has asked, and asks again
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.communicate()


# -- the terminal -----------------------------------------------------------------------------


class Terminal:
    """A terminal whose window a test closes; a service in it is the leader of its session."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self.path = os.ttyname(slave)
        self._slave: int | None = slave
        os.set_blocking(self._master, False)
        self.shown = ""

    def launch(self, service: ServiceProcess, *, first: str = "", new_session: bool = True) -> None:
        # The first terminal that the leader of a session opens becomes the session's own.
        service.launch_anew(
            f'{first} exec "$@" <{self.path} >{self.path} 2>&1', new_session=new_session
        )

    def shows(self, words: str) -> bool:
        while True:
            try:
                self.shown += os.read(self._master, 65_536).decode(errors="replace")
            except BlockingIOError:
                return words in self.shown

    def close(self) -> None:
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None
            os.close(self._master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def test_a_service_ends_with_its_terminal_and_reloads_when_asked(
    new_service: NewService, terminal: Terminal
) -> None:
    service = new_service()
    terminal.launch(service)
    service.await_ready()
    service.send(signal.SIGHUP)
    until(lambda: terminal.shows("settings_reloaded"), what="it reads its settings again")
    assert ends_within(service, 20, terminal.close) == 0


def test_a_service_that_waits_for_its_log_ends_with_its_terminal(
    new_service: NewService, terminal: Terminal
) -> None:
    service = new_service(nats_url="nats://127.0.0.1:1")
    terminal.launch(service)
    until(lambda: terminal.shows("waiting_for_log"), 20, "it waits")
    assert ends_within(service, 10, terminal.close) == 0


def test_a_service_under_nohup_outlives_its_terminal_and_reloads(
    new_service: NewService, terminal: Terminal
) -> None:
    service = new_service(roles="api")
    service.launch_anew(f'trap "" HUP; : <{terminal.path}; exec "$@"', new_session=True)
    service.await_ready()
    terminal.close()
    service.send(signal.SIGHUP)
    until(lambda: "settings_reloaded" in service.output, what="it reads its settings again")
    assert service.exit_code is None


# -- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [200, 64])
def test_few_open_files_leave_room_for_half_as_many_streams(
    new_service: NewService, limit: int
) -> None:
    service = new_service()
    service.launch_anew(f'ulimit -n {limit}; exec "$@"')
    service.await_ready()
    assert re.search(rf'"streams_allowed": ?{limit // 2}\b', service.output)
    assert is_submitted(service, "p")
    assert service.terminate() == 0
