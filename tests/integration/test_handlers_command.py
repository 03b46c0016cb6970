"""The command handler with real programs, real children, and a real kill -9."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import psutil
import pytest
from msgspec import Raw

from holdfast_worker.cancellation import Cancellation
from holdfast_worker.task import Assignment
from service.executor.attempts.endings import Failure, Success
from service.executor.attempts.execution import execute
from service.executor.handlers.command import OUTPUT_BYTES, command_handler
from tests.waiting import until

PROGRAMS = ("cat", "echo", "false", "sh", "sleep", "wc", "env", "yes", sys.executable)
HANDLER = command_handler(PROGRAMS)
PATIENCE_S = 10.0


def work(input: object, **fields: object) -> Assignment:
    values: dict[str, object] = {
        "plan_id": "p", "task_id": "t", "kind": "command", "type": "worker", "attempt": 1,
        "fencing_token": 1, "retry": 0, "timeout_s": 60.0, "context": Raw(b"{}"),
        "dependencies": {}, "feedback": Raw(b"null"),
    }  # fmt: skip
    return Assignment(**(values | fields), input=Raw(msgspec.json.encode(input)))  # pyright: ignore[reportArgumentType]


def run(
    program: str, *args: str, cancelled: Cancellation | None = None, **fields: object
) -> Success | Failure:
    given = {"program": program, "args": args} | {
        key: fields.pop(key) for key in ("stdin", "stdin_from") if key in fields
    }
    return execute(HANDLER, work(given, **fields), cancelled or Cancellation(), lambda _: None)


def output(ending: Success | Failure) -> dict[str, object]:
    assert isinstance(ending, Success), ending
    return msgspec.json.decode(ending.output)


def error(ending: Success | Failure) -> tuple[str, bool]:
    assert isinstance(ending, Failure), ending
    return ending.error_type, ending.retryable


def test_a_program_gets_its_arguments_and_input() -> None:
    assert output(run("echo", "a b", "$HOME; ls")) == {
        "exit_code": 0, "stdout": "a b $HOME; ls\n", "stderr": "", "truncated": False,
    }  # fmt: skip
    assert output(run("cat", stdin="hello"))["stdout"] == "hello"
    assert str(output(run("wc", "-c", stdin="x" * 1_000_000))["stdout"]).strip() == "1000000"


def test_outputs_of_dependencies_are_fed_to_it() -> None:
    ending = run("cat", stdin_from="dependencies", dependencies={"a": Raw(b'{"n":1}')})
    assert msgspec.json.decode(str(output(ending)["stdout"])) == {"a": {"n": 1}}


def test_its_environment_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_API_KEY", "hush")
    assert "hush" not in str(output(run("env"))["stdout"])


@pytest.mark.parametrize("program", ["rm", "/bin/echo", "../bin/echo", "echo ", "sh -c ls"])
def test_only_what_is_allowed_runs(program: str) -> None:
    ending = run(program)
    assert error(ending) == ("command_not_allowed", False)


@pytest.mark.parametrize(
    "given",
    [
        {}, {"program": "echo", "args": "text"}, {"program": "echo", "args": [1]},
        {"program": "echo", "shell": True}, {"program": "echo", "args": ["a\0b"]},
        {"program": "echo", "stdin": "x", "stdin_from": "dependencies"},
    ],
)  # fmt: skip
def test_a_malformed_input_is_final(given: object) -> None:
    ending = execute(HANDLER, work(given), Cancellation(), lambda _: None)
    assert error(ending) == ("bad_input", False)


def test_a_bad_end_is_a_failure_with_the_tail_of_stderr() -> None:
    ending = run("sh", "-c", "echo problem >&2; exit 3")
    assert isinstance(ending, Failure)
    assert (ending.error_type, ending.error_message) == (
        "non_zero_exit",
        "sh exited with 3: problem",
    )
    ending = run("sh", "-c", "kill -SEGV $$")
    assert isinstance(ending, Failure)
    assert ending.error_message == "sh was ended by SIGSEGV"


def test_output_is_bounded_and_the_program_still_runs_to_its_end() -> None:
    script = f"import sys; sys.stdout.write('x' * {10 * OUTPUT_BYTES}); sys.stderr.write('done')"
    ended = output(run(sys.executable, "-c", script))
    assert ended["stdout"] == "x" * OUTPUT_BYTES
    assert ended["truncated"] is True
    assert ended["stderr"] == "done"


def test_a_program_that_does_not_read_its_input_ends_all_the_same() -> None:
    assert output(run("echo", "hi", stdin="x" * 1_000_000))["stdout"] == "hi\n"


@pytest.mark.parametrize(
    ("said", "passed"), [('{"pass": true}', True), ('{"pass": false, "feedback": [1]}', False)]
)
def test_a_critics_program_prints_its_verdict(said: str, passed: bool) -> None:  # noqa: FBT001
    ending = run("echo", said, type="critic")
    assert isinstance(ending, Success)
    assert ending.verdict is not None
    assert ending.verdict.pass_ is passed


def test_a_critic_without_a_verdict_fails() -> None:
    assert error(run("echo", "looks good", type="critic")) == ("bad_output", False)


# -- nothing is left behind -------------------------------------------------------------------

# A shell with a child in its group, one that left the group, and one that ignores SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
mark = sys.argv[1]
sleeper = [sys.executable, "-c", "import time; time.sleep(300)", mark]
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
subprocess.Popen(sleeper)
subprocess.Popen(sleeper, start_new_session=True)
subprocess.Popen([sys.executable, "-c", deaf, mark])
if sys.argv[2] == "stay":
    time.sleep(300)
"""


def marked(mark: str) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if mark in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.fixture
def mark(tmp_path: Path) -> str:
    return f"mark-{tmp_path.parent.name}-{tmp_path.name}-{os.getpid()}"


def test_cancelling_ends_the_whole_family(mark: str) -> None:
    cancelled = Cancellation()
    endings: list[Success | Failure] = []
    thread = threading.Thread(
        target=lambda: endings.append(
            run(sys.executable, "-c", FAMILY, mark, "stay", cancelled=cancelled)
        )
    )
    thread.start()
    until(lambda: len(marked(mark)) == 5)  # the guardian, the program, and three children
    cancelled.cancel("timeout")
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert error(endings[0])[0] == "cancelled"
    assert marked(mark) == []


def test_children_left_behind_by_a_program_that_ended_are_ended(mark: str) -> None:
    assert output(run(sys.executable, "-c", FAMILY, mark, "go"))["exit_code"] == 0
    assert marked(mark) == []


def test_cancelling_before_it_begins_is_cancelling() -> None:
    cancelled = Cancellation()
    cancelled.cancel("timeout")
    assert error(run("sleep", "60", cancelled=cancelled))[0] == "cancelled"


PARENT = """
import sys
from tests.integration.test_handlers_command import FAMILY, run
run(sys.executable, "-c", FAMILY, sys.argv[1], "stay")
"""


def test_nothing_survives_a_kill_of_the_service(mark: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, mark])
    try:
        until(lambda: len(marked(mark)) == 6)  # the parent bears the mark too
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until(lambda: marked(mark) == [])


def test_the_program_does_not_outlive_its_guardian(mark: str) -> None:
    endings: list[Success | Failure] = []
    script = "import time; time.sleep(300)"
    thread = threading.Thread(
        target=lambda: endings.append(run(sys.executable, "-c", script, mark))
    )
    thread.start()
    until(lambda: len(marked(mark)) == 2)
    guardians = [each for each in marked(mark) if "guardian.py" in " ".join(each.cmdline())]
    guardians[0].kill()
    thread.join(PATIENCE_S)
    assert error(endings[0])[0] == "non_zero_exit"
    until(lambda: marked(mark) == [])


TALKER = """
import os, sys, time
if os.fork() == 0:  # a child that the death of its parent does not end, and that holds the output
    while True:
        print("more", flush=True)
        time.sleep(0.01)
time.sleep(300)
"""


def test_a_killed_guardian_frees_its_slot(mark: str) -> None:
    endings: list[Success | Failure] = []
    thread = threading.Thread(
        target=lambda: endings.append(run(sys.executable, "-c", TALKER, mark))
    )
    thread.start()
    until(lambda: len(marked(mark)) == 3)
    guardians = [each for each in marked(mark) if "guardian.py" in " ".join(each.cmdline())]
    guardians[0].kill()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert error(endings[0])[0] == "non_zero_exit"
    until(lambda: marked(mark) == [])
