"""A Holdfast instance as a stranger runs it: a process that a test may kill and restart.

It is tied to the thread that starts it, so even a test run that is shot leaves none behind.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from service.runtime.child_process import dying_with_parent
from service.runtime.data_folder import read_holder
from service.runtime.nats_server.embedded import log_of
from tests.prepared_python import PreparedProcess, run_prepared
from tests.waiting import until

ROOT = Path(__file__).parents[2]
START_S = 40.0
READY_ANSWER_S = 20.0
STOP_S = 30.0
TERMINAL_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def environment(**settings: str) -> dict[str, str]:
    """The environment of this process with no other setting of Holdfast than those given.

    A setting is named as its key, with two underscores for the dot: `http__port="0"`.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HOLDFAST_") and name != "NATS_URL"
    }
    wanted = {f"HOLDFAST_{name.upper()}": value for name, value in settings.items()}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | wanted


def run_holdfast(*arguments: str, within_s: float = 60, **settings: str) -> tuple[int, str]:
    """One command of the command line, to its end: its exit code and all that it said."""
    done = run_prepared(
        "service", *arguments, environment=environment(**settings), within_s=within_s, apart=False
    )
    return done.returncode, done.stdout.decode()


@contextmanager
def nothing_ignored() -> Generator[None]:
    """Programs that are started in the block ignore no signal of a terminal.

    A test run under `nohup`, or in the background of a script, ignores some, and what it starts
    would do the same. A handler is not handed on; it is only for the main thread.
    """
    ignored = [each for each in TERMINAL_SIGNALS if signal.getsignal(each) is signal.SIG_IGN]
    for each in ignored:
        signal.signal(each, lambda *_: None)
    try:
        yield
    finally:
        for each in ignored:
            signal.signal(each, signal.SIG_IGN)


class ServiceProcess:
    """`python -m service serve` on a data folder, on free ports; `stop` it at the end.

    Further settings by keyword, as in `environment`; ``preload`` is a library that is loaded into
    it before all others, ``module`` what Python runs. What it prints is kept beside its folder.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        nats_url: str = "",
        roles: str = "",
        preload: str = "",
        module: str = "service",
        **settings: str,
    ) -> None:
        self.data_dir = data_dir
        self._module = module
        self._arguments = ["--roles", roles] if roles else []
        defaults = {"http__port": "0", "nats__port": "0", "sample__enabled": "false"}
        self._environment = environment(
            **defaults | {"data_dir": str(data_dir), "nats__url": nats_url} | settings
        ) | ({"LD_PRELOAD": preload} if preload else {})
        self._output = data_dir.with_suffix(".output")
        self._process: subprocess.Popen[bytes] | PreparedProcess | None = None
        self._url = ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        """Where this life of the process serves; empty while it does not."""
        if not self._url and self._process is not None:
            holder = read_holder(self.data_dir)
            if holder is not None and holder.pid == self.pid:
                self._url = holder.http_url
        return self._url

    @property
    def nats_url(self) -> str:
        """Where its log is, with the reader's credentials if the server is embedded."""
        holder = read_holder(self.data_dir)
        assert holder is not None
        return log_of(self.data_dir, holder)

    @property
    def output(self) -> str:
        """Everything that all lives have printed."""
        return self._output.read_text(errors="replace")

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()

    def launch(self) -> None:
        """Start the process, and do not wait for it."""
        if "LD_PRELOAD" in self._environment:
            self.launch_anew()
            return
        self._prepare()
        self._process = PreparedProcess(
            self._module,
            "serve",
            *self._arguments,
            environment=self._environment,
            folder=self.data_dir.parent,
            output=self._output,
        )

    def launch_anew(
        self, shell: str = 'exec "$@"', stdout: int | None = None, *, new_session: bool = False
    ) -> None:
        """Start the process as a shell does, Python and its imports included.

        ``shell`` is the script that becomes the service: it may redirect, ignore signals or lower
        limits first. ``stdout`` is a descriptor in place of the file of `output`.
        """
        self._prepare()
        command = (sys.executable, "-m", self._module, "serve", *self._arguments)
        with self._output.open("ab") as output, nothing_ignored():
            self._process = subprocess.Popen(
                dying_with_parent("/bin/sh", "-c", shell, "sh", *command),
                env=self._environment,
                cwd=self.data_dir.parent,
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=output,
                start_new_session=new_session,
            )

    def _prepare(self) -> None:
        self._url = ""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)

    def start(self) -> "ServiceProcess":
        """Start the process; it is ready on return."""
        self.launch()
        self.await_ready()
        return self

    def await_ready(self, within_s: float = START_S) -> None:
        until(self._is_ready, within_s, f"the service is ready; it said:\n{self.output[-2000:]}")

    def _is_ready(self) -> bool:
        assert self.exit_code is None, f"it ended with {self.exit_code}:\n{self.output[-4000:]}"
        return bool(self.url) and self.readiness()[0] == httpx.codes.OK

    def readiness(self) -> tuple[int, list[str]]:
        """The status of /readyz, and the names of the checks that fail."""
        answer = httpx.get(f"{self.url}/readyz", timeout=READY_ANSWER_S)
        return answer.status_code, answer.json()["failing"]

    def nats_pid(self) -> int | None:
        """The embedded server's process, None while there is none."""
        children = psutil.Process(self.pid).children(recursive=True)
        return next((child.pid for child in children if _is_nats(child)), None)

    def kill_nats(self) -> None:
        """As a crash of the embedded server; does nothing while there is none."""
        if (pid := self.nats_pid()) is not None:
            os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """As a crash of the service: SIGKILL, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_S)
        self._url = ""

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, within_s: float = STOP_S) -> int:
        """Its exit code, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(within_s)

    def terminate(self, within_s: float = STOP_S) -> int:
        """Ask it to end; answers its exit code."""
        self.send(signal.SIGTERM)
        return self.wait(within_s)

    def stop(self) -> None:
        """End it, gently or not; for the end of a test."""
        if self._process is None or self.exit_code is not None:
            return
        try:
            self.terminate(15)
        except subprocess.TimeoutExpired:
            self.kill()


def _is_nats(process: psutil.Process) -> bool:
    try:
        return process.name() == "nats-server"
    except psutil.NoSuchProcess:
        return False


def is_gone(pid: int) -> bool:
    """Whether no such process runs any more; a dead one that was not reaped counts as gone."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
