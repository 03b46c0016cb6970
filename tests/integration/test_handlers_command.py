"""The command handler with real programs, real children, and a real kill -9."""

import os
import pwd
import re
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
from service.executor.handlers.secrets import Secrets
from service.runtime.masking import Masking
from service.settings.config import CommandSettings, ConfigError, SecretSettings
from tests.waiting import until

WORDS = CommandSettings(argv=("wc", "-w", "--", "{file}"), parameters={"file": r"/[\w/.-]+\.md"})
HANDLER = command_handler({"words": WORDS}, Secrets())
PATIENCE_S = 40.0


def work(input: object, **fields: object) -> Assignment:
    values: dict[str, object] = {
        "plan_id": "p", "task_id": "t", "kind": "command", "type": "worker", "attempt": 1,
        "fencing_token": 1, "retry": 0, "timeout_s": 60.0, "context": Raw(b"{}"),
        "dependencies": {}, "feedback": Raw(b"null"),
    }  # fmt: skip
    return Assignment(**(values | fields), input=Raw(msgspec.json.encode(input)))  # pyright: ignore[reportArgumentType]


def run(
    program: str,
    *args: str,
    cancelled: Cancellation | None = None,
    bounds: dict[str, object] | None = None,
    secrets: Secrets | None = None,
    **fields: object,
) -> Success | Failure:
    """Run one command line of the settings, named like its program."""
    given = {"command": program} | {
        key: fields.pop(key) for key in ("stdin", "stdin_from", "env") if key in fields
    }
    settings = msgspec.convert({"argv": (program, *args)} | (bounds or {}), CommandSettings)
    handler = command_handler({program: settings}, secrets or Secrets())
    return execute(handler, work(given, **fields), cancelled or Cancellation(), lambda _: None)


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


def words(**fields: object) -> Success | Failure:
    given = {"command": "words"} | fields
    return execute(HANDLER, work(given), Cancellation(), lambda _: None)


def test_a_named_command_line_counts_the_words_of_its_parameter(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("one two three")
    found = output(words(parameters={"file": str(tmp_path / "a.md")}))
    assert found["stdout"] == f"3 {tmp_path / 'a.md'}\n"


@pytest.mark.parametrize("name", ["wc", "/usr/bin/wc", "words ", "sh -c ls"])
def test_only_what_the_settings_name_runs(name: str) -> None:
    ending = words(command=name, parameters={"file": "/a.md"})
    assert error(ending) == ("command_not_allowed", False)


BAD_PARAMETERS: list[dict[str, str]] = [
    {}, {"file": "--files0-from=/etc/hostname"}, {"file": "-"}, {"file": "/etc/passwd"},
    {"file": "/a.md\n/etc/passwd"}, {"file": "/a\0.md"}, {"file": "/a.md", "more": "x"},
    {"file": "/a.md; ls"}, {"file": "/a.md\n"},
]  # fmt: skip


@pytest.mark.parametrize("parameters", BAD_PARAMETERS)
def test_a_parameter_that_does_not_fit_is_final(parameters: dict[str, str]) -> None:
    assert error(words(parameters=parameters)) == ("bad_input", False)


@pytest.mark.parametrize("value", ["-rf", "-", "a\nb", "\x1b[2J"])
def test_without_a_pattern_a_parameter_is_one_line_without_a_dash_before_it(value: str) -> None:
    handler = command_handler({"say": CommandSettings(argv=("echo", "{what}"))}, Secrets())
    given = {"command": "say", "parameters": {"what": value}}
    assert error(execute(handler, work(given), Cancellation(), lambda _: None))[0] == "bad_input"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"argv": ["no-such-program"]}, "no program"),
        ({"argv": ["bin/wc"]}, "absolute path"),
        ({"argv": ["wc"], "parameters": {"file": ".*"}}, "no argument holds {file}"),
        ({"argv": ["wc", "{file}"], "parameters": {"file": "("}}, "cannot be used"),
        ({"argv": ["wc"], "user": "no-such-account"}, "account|root"),
    ],
)
def test_a_command_line_that_cannot_be_used_stops_the_start(
    settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigError, match=f"executor.command.c: .*{reason}"):
        command_handler({"c": msgspec.convert(settings, CommandSettings)}, Secrets())


# -- its place and its bounds -----------------------------------------------------------------


def test_it_runs_in_an_empty_folder_of_its_own_that_is_removed() -> None:
    script = 'ls -A; pwd; echo "$HOME $TMPDIR"; mkdir -p a/b; echo x > a/b/c'
    lines = str(output(run("sh", "-c", script))["stdout"]).splitlines()
    folder = lines[0]
    assert lines == [folder, f"{folder} {folder}"]
    assert not Path(folder).exists()
    assert Path(folder) != Path.cwd()


BOUNDS: list[tuple[str, dict[str, object], str]] = [
    ("x = bytearray(200_000_000)", {"memory_mb": 64}, "MemoryError"),
    ("f = open('big', 'wb'); [f.write(bytes(1_000_000)) or f.flush() for _ in range(9)]",
     {"file_mb": 4}, "File too large"),
    ("fs = [open('/dev/null') for _ in range(100)]", {"open_files": 32}, "Too many open files"),
    ("while True: pass", {"cpu_s": 1}, "ended by SIG(KILL|XCPU)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "bounds", "said"), BOUNDS, ids=["memory", "file", "files", "cpu"]
)
def test_a_program_stays_within_its_bounds(
    script: str, bounds: dict[str, object], said: str
) -> None:
    ending = run(sys.executable, "-c", script, bounds=bounds)
    assert isinstance(ending, Failure)
    assert ending.error_type == "non_zero_exit"
    assert re.search(said, ending.error_message)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another account")


@as_root
def test_it_may_run_as_another_account() -> None:
    script = "id -un; touch mine && echo wrote; cat /proc/self/oom_score_adj; id -G"
    shown = str(output(run("sh", "-c", script, bounds={"user": "nobody"}))["stdout"]).split()
    assert shown[:3] == ["nobody", "wrote", "800"]
    assert shown[3:] == [str(pwd.getpwnam("nobody").pw_gid)]


@as_root
def test_its_processes_are_bounded() -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait"
    ending = run("sh", "-c", script, bounds={"user": "nobody", "processes": 4})
    assert isinstance(ending, Failure)
    assert "fork" in ending.error_message.lower()


def test_a_secret_reaches_a_program_by_its_environment_or_input_and_comes_back_masked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THE_KEY", "sk-very-secret-indeed")
    settings = SecretSettings(env="THE_KEY", for_=("command:sh",))
    secrets = Secrets({"key": settings}, masking := Masking())
    ref = {"secret": "key"}
    ending = run("sh", "-c", 'cat; echo " $KEY"', secrets=secrets, stdin=ref, env={"KEY": ref})
    assert output(ending)["stdout"] == "sk-very-secret-indeed sk-very-secret-indeed\n"
    assert masking.text(str(output(ending)["stdout"])) == "*** ***\n"
    for other in ("cat", "env"):
        assert error(run(other, secrets=secrets, stdin=ref)) == ("bad_input", False)


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "HOME", "lower"])
def test_what_steers_a_program_cannot_be_set(name: str) -> None:
    assert error(run("env", env={name: {"secret": "key"}})) == ("bad_input", False)


@pytest.mark.parametrize(
    "given",
    [
        {}, {"command": "words", "parameters": "text"},
        {"command": "words", "parameters": {"a": 1}},
        {"command": "words", "shell": True},
        {"command": "words", "stdin": "x", "stdin_from": "dependencies"},
        {"program": "wc", "args": ["-w"]},
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
