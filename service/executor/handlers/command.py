"""The kind ``command`` runs a program from the allow-list, with its arguments as a list, no shell.

Input: ``{"program": "wc", "args": ["-w", "README.md"]}`` and, if wanted, ``"stdin"`` (a text) or
``"stdin_from": "dependencies"`` (their outputs as one JSON object). Output: ``{"exit_code",
"stdout", "stderr", "truncated"}``. A critic's program says ``{"pass": …}`` on stdout. On a
time-out, cancellation or lost lease the program is ended with all its children, see `guardian`.
"""

import os
import selectors
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock, Timer
from time import monotonic
from typing import IO, Annotated, Any, Literal, cast

import msgspec

from holdfast_worker.cancellation import Stopping
from holdfast_worker.failures import TaskFailed
from holdfast_worker.handler import AnyHandler, Handler
from holdfast_worker.task import Result, TaskRun
from service.executor.handlers import guardian
from service.executor.handlers.verdicts import verdict_of
from service.settings.config import ConfigError
from streams.plan.events import Verdict

OUTPUT_BYTES = 256 * 1024
TAIL_CHARACTERS = 1_000
READ_BYTES = 64 * 1024
LOOK_S = 0.5  # how often it is checked that the guardian lives
KILL_AFTER_S = 2 * guardian.GRACE_S + 0.5  # a guardian that does not end its program by then
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")

Argument = Annotated[str, msgspec.Meta(max_length=65_536)]


class CommandInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to run."""

    program: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    args: Annotated[tuple[Argument, ...], msgspec.Meta(max_length=1000)] = ()
    stdin: str | None = None
    stdin_from: Literal["dependencies"] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError naming the field that does not fit."""
        if self.stdin is not None and self.stdin_from is not None:
            raise ValueError("stdin: give stdin or stdin_from, not both")
        for place, argument in enumerate((self.program, *self.args)):
            if "\0" in argument:
                where = f"args[{place - 1}]" if place else "program"
                raise ValueError(f"{where}: holds a NUL character")


def command_handler(allow: Iterable[str]) -> AnyHandler:
    """The handler for the programs in ``allow``: names found in PATH now, or absolute paths.

    Raises `ConfigError` naming one that does not exist.
    """
    programs = {name: _located(name) for name in allow}

    def command(task: TaskRun) -> Result:
        return run_command(task, programs)

    return Handler("command", command, input_type=CommandInput)


def _located(name: str) -> str:
    if "/" in name and not Path(name).is_absolute():
        raise ConfigError(
            f"executor.command.allow: {name!r} must be a name without slashes or an absolute path"
        )
    found = shutil.which(name)
    if found is None:
        raise ConfigError(f"executor.command.allow: there is no program {name!r} that can be run")
    return str(Path(found).absolute())


def run_command(task: TaskRun, programs: Mapping[str, str]) -> Result:
    """Run the program to its end; raises `TaskFailed` when it is not allowed or ends badly."""
    wish = msgspec.convert(task.input, CommandInput)
    task.raise_if_cancelled()
    path = programs.get(wish.program)
    if path is None:
        allowed = ", ".join(sorted(programs)) or "none"
        raise TaskFailed(
            "command_not_allowed",
            f"{wish.program!r} is not in executor.command.allow (allowed: {allowed})",
            retryable=False,
        )
    outcome = _run(path, wish, _stdin(task, wish), task.cancelled)
    task.raise_if_cancelled()
    if outcome["exit_code"] != 0:
        raise TaskFailed("non_zero_exit", _complaint(wish.program, outcome))
    verdict = _verdict(outcome["stdout"]) if task.type == "critic" else None
    return Result(outcome, verdict=verdict)


def _stdin(task: TaskRun, wish: CommandInput) -> bytes:
    if wish.stdin_from == "dependencies":
        return msgspec.json.encode(task.dependencies)
    return (wish.stdin or "").encode()


def _verdict(stdout: str) -> Verdict:
    try:
        verdict = verdict_of(msgspec.json.decode(stdout))
    except msgspec.DecodeError:
        verdict = None
    if verdict is None:
        message = 'a critic\'s program must print {"pass": true or false, "feedback": …}'
        raise TaskFailed("bad_output", message, retryable=False)
    return verdict


def _complaint(program: str, outcome: dict[str, Any]) -> str:
    code = outcome["exit_code"]
    how = f"exited with {code}" if code > 0 else f"was ended by {_signal_name(-code)}"
    tail = outcome["stderr"][-TAIL_CHARACTERS:].strip()
    return f"{program} {how}" + (f": {tail}" if tail else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# -- the process ------------------------------------------------------------------------------


class _Leash:
    """Our end of the guardian's control pipe: letting go of it ends the program."""

    def __init__(self) -> None:
        self.theirs, self._ours = os.pipe()
        self._lock = Lock()
        self._held = True

    def let_go(self) -> None:
        """Close our end; any thread may, and twice is once."""
        with self._lock:
            if self._held:
                self._held = False
                os.close(self._ours)


def _run(path: str, wish: CommandInput, stdin: bytes, stopping: Stopping) -> dict[str, Any]:
    leash = _Leash()
    try:
        process = _start(path, wish, leash.theirs)
    except OSError as error:
        leash.let_go()
        raise TaskFailed("other", f"{wish.program} cannot be started: {error}") from error
    finally:
        os.close(leash.theirs)
    killer = Timer(KILL_AFTER_S, process.kill)
    killer.daemon = True

    def stop() -> None:
        leash.let_go()
        killer.start()

    stopping.on_cancel(stop)
    try:
        with process:
            outputs = _converse(process, stdin)
            exit_code = process.wait()
    finally:
        leash.let_go()
        killer.cancel()
    return {
        "exit_code": exit_code,
        "stdout": outputs[0].text,
        "stderr": outputs[1].text,
        "truncated": outputs[0].truncated or outputs[1].truncated,
    }


def _start(path: str, wish: CommandInput, control: int) -> "subprocess.Popen[bytes]":
    interpreter = [sys.executable, "-I", "-S", guardian.__file__, str(control)]
    return subprocess.Popen(
        [*interpreter, path, wish.program, *wish.args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pass_fds=(control,),
        start_new_session=True,
        env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
    )


class _Output:
    """What a program wrote, up to a bound; the rest is read and thrown away."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self.truncated = False

    def add(self, data: bytes) -> None:
        room = OUTPUT_BYTES - len(self._kept)
        self._kept += data[:room]
        self.truncated = self.truncated or len(data) > room

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")


def _converse(process: "subprocess.Popen[bytes]", stdin: bytes) -> tuple[_Output, _Output]:
    """Write ``stdin`` and read both outputs until the last process that holds them has ended.

    A guardian that was killed cannot end these processes any more; then this function does.
    """
    outputs = _Output(), _Output()
    left = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        for stream, output in ((process.stdout, outputs[0]), (process.stderr, outputs[1])):
            _register(selector, stream, selectors.EVENT_READ, output)
        _register(selector, process.stdin, selectors.EVENT_WRITE, None)
        look_at, seen_ended = monotonic() + LOOK_S, False
        while selector.get_map():
            ready = selector.select(LOOK_S)
            if monotonic() >= look_at:
                if seen_ended:
                    # It was killed: else the program's processes would have ended before it.
                    guardian.end_session(process.pid)
                    break
                look_at, seen_ended = monotonic() + LOOK_S, _has_ended(process)
            for key, _ in ready:
                if key.data is None:
                    left = _write(key.fd, left)
                    over = not left
                else:
                    over = not _read(key.fd, key.data)
                if over:
                    selector.unregister(key.fileobj)
                    cast("IO[bytes]", key.fileobj).close()
    return outputs


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether it has; its id stays taken until it is waited for."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, options) is not None


def _register(
    selector: selectors.BaseSelector, stream: IO[bytes] | None, event: int, output: _Output | None
) -> None:
    if stream is not None:
        os.set_blocking(stream.fileno(), False)
        selector.register(stream, event, output)


def _write(descriptor: int, left: memoryview) -> memoryview:
    try:
        return left[os.write(descriptor, left[:READ_BYTES]) :] if left else left
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return memoryview(b"")  # the program does not want to hear it


def _read(descriptor: int, output: _Output) -> bool:
    try:
        data = os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return True
    output.add(data)
    return bool(data)
