"""The kind ``command`` runs a command line that the settings name, never a shell.

Input: ``{"command": "words", "parameters": {"file": "/a/file"}}`` and, if wanted, ``"stdin"`` (a
text, or a secret by name) or ``"stdin_from": "dependencies"`` (their outputs as one JSON object),
and ``"env": {"NAME": {"secret": …}}``. A secret is no parameter: every account reads the arguments
of a process. Output: ``{"exit_code", "stdout", "stderr", "truncated"}``. A critic's program says
``{"pass": …}`` on stdout. The program runs in an empty folder of its own, within the bounds of the
settings; on a time-out, cancellation or lost lease it is ended with all its children (`guardian`).
"""

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from threading import Lock, Timer
from time import monotonic
from typing import IO, Annotated, Any, Literal, cast

import msgspec

from holdfast_worker.cancellation import Stopping
from holdfast_worker.failures import TaskFailed
from holdfast_worker.handler import AnyHandler
from holdfast_worker.task import Result, TaskRun
from service.executor.handlers import guardian
from service.executor.handlers.command_line import CommandLine
from service.executor.handlers.inputs import CheckedHandler
from service.executor.handlers.secrets import SecretRef, Secrets
from service.executor.handlers.verdicts import verdict_in
from service.runtime.masking import KNOWN
from service.settings.config import CommandSettings
from streams.plan.events import Verdict

OUTPUT_BYTES = 256 * 1024
TAIL_CHARACTERS = 1_000
READ_BYTES = 64 * 1024
LOOK_S = 0.5  # how often it is checked that the guardian lives
KILL_AFTER_S = 2 * guardian.GRACE_S + 0.5  # a guardian that does not end its program by then
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ")
NOT_SETTABLE = frozenset({*PASSED_ON, "HOME", "TMPDIR", "IFS", "ENV", "BASH_ENV", "PYTHONPATH"})

ArgumentValue = Annotated[str, msgspec.Meta(max_length=65_536)]
Variable = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]


class CommandInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to run."""

    command: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    parameters: Annotated[dict[str, ArgumentValue], msgspec.Meta(max_length=100)] = {}
    stdin: str | SecretRef | None = None
    stdin_from: Literal["dependencies"] | None = None
    env: Annotated[dict[Variable, SecretRef], msgspec.Meta(max_length=16)] = {}

    def __post_init__(self) -> None:
        """Raise ValueError naming the field that does not fit."""
        if self.stdin is not None and self.stdin_from is not None:
            raise ValueError("stdin: give stdin or stdin_from, not both")
        if taken := [name for name in self.env if name in NOT_SETTABLE or name.startswith("LD_")]:
            raise ValueError(f"env: {taken[0]} cannot be set there")


def command_handler(settings: Mapping[str, CommandSettings], secrets: Secrets) -> AnyHandler:
    """The handler for the command lines of the settings. Raises `ConfigError` naming a bad one."""
    lines = {name: CommandLine(name, each) for name, each in settings.items()}

    def command(task: TaskRun) -> Result:
        return run_command(task, lines, secrets)

    def complaint(wish: CommandInput) -> str | None:
        line = lines.get(wish.command)
        return line.complaint(wish.parameters) if line else _unknown(wish.command, lines)

    return CheckedHandler("command", command, CommandInput, complaint)


def _unknown(name: str, lines: Mapping[str, CommandLine]) -> str:
    known = ", ".join(sorted(lines)) or "none"
    return f"command: {name!r} is none of executor.command ({known})"


def run_command(task: TaskRun, lines: Mapping[str, CommandLine], secrets: Secrets) -> Result:
    """Run the program to its end; raises `TaskFailed` when it is not allowed or ends badly."""
    wish = msgspec.convert(task.input, CommandInput)
    task.raise_if_cancelled()
    line = lines.get(wish.command)
    if line is None:
        said = _unknown(wish.command, lines)
        raise TaskFailed("command_not_allowed", said, retryable=False)
    if said := line.complaint(wish.parameters):
        raise TaskFailed("bad_input", said, retryable=False)
    with line.folder() as folder:
        job = ProgramJob(
            path=line.program,
            arguments=line.arguments(wish.parameters),
            bounds=line.bounds(folder),
            stdin=_stdin(task, wish, secrets),
            env=_environment(wish, secrets, folder),
        )
        outcome = _run(job, task.cancelled)
    task.raise_if_cancelled()
    if outcome["exit_code"] != 0:
        raise TaskFailed("non_zero_exit", _complaint(wish.command, outcome))
    verdict = _verdict(outcome["stdout"]) if task.type == "critic" else None
    return Result(outcome, verdict=verdict)


class ProgramJob(msgspec.Struct, frozen=True):
    """One program to run: what the guardian gets, its input and its environment."""

    path: str
    arguments: tuple[str, ...]
    bounds: str
    stdin: bytes
    env: dict[str, str]


def _stdin(task: TaskRun, wish: CommandInput, secrets: Secrets) -> bytes:
    if wish.stdin_from == "dependencies":
        return msgspec.json.encode(task.dependencies)
    if isinstance(wish.stdin, SecretRef):
        return secrets.resolved(wish.stdin, f"command:{wish.command}").encode()
    return (wish.stdin or "").encode()


def _environment(wish: CommandInput, secrets: Secrets, folder: str) -> dict[str, str]:
    """A few variables of ours, the program's own folder, and the secrets that it is given."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    given = {
        name: secrets.resolved(ref, f"command:{wish.command}") for name, ref in wish.env.items()
    }
    return passed_on | {"HOME": folder, "TMPDIR": folder} | given


def _verdict(stdout: str) -> Verdict:
    verdict = verdict_in(stdout)
    if verdict is None:
        message = 'a critic\'s program must print {"pass": true or false, "feedback": …}'
        raise TaskFailed("bad_output", message, retryable=False)
    return verdict


def _complaint(program: str, outcome: dict[str, Any]) -> str:
    code = outcome["exit_code"]
    how = f"exited with {code}" if code > 0 else f"was ended by {_signal_name(-code)}"
    tail = KNOWN.text(outcome["stderr"])[-TAIL_CHARACTERS:].strip()
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


def _run(job: ProgramJob, stopping: Stopping) -> dict[str, Any]:
    leash = _Leash()
    try:
        process = _start(job, leash.theirs)
    except OSError as error:
        leash.let_go()
        raise TaskFailed("other", f"{job.path} cannot be started: {error}") from error
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
            outputs = _converse(process, job.stdin)
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


def _start(job: ProgramJob, control: int) -> "subprocess.Popen[bytes]":
    interpreter = [sys.executable, "-I", "-S", guardian.__file__, str(control), job.bounds]
    return subprocess.Popen(
        [*interpreter, job.path, *job.arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pass_fds=(control,),
        start_new_session=True,
        env=job.env,
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
        return memoryview(b"")  # the program does not read its input


def _read(descriptor: int, output: _Output) -> bool:
    try:
        data = os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return True
    output.add(data)
    return bool(data)
