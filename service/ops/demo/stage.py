"""The stage of a demonstration: a folder and processes of its own, which end with it.

Whatever ends the demonstration (its end, an error, Ctrl-C) ends the processes and removes the
folder; should it be killed, the kernel ends the processes (`service.runtime.child_process`).
"""

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any, Self

import httpx
import msgspec

from service.ops.demo.worker import TOKEN, Told
from service.ops.doctor.sources.processes import process_state
from service.runtime.child_process import dying_with_parent
from service.runtime.data_folder import read_holder

READY_S = 60.0
END_S = 20.0
POLL_S = 0.05
CHECKOUT = Path(__file__).parents[3]

_decode = msgspec.json.Decoder(Told).decode


class StageFailure(Exception):
    """A prop does not work: the service does not start, or a worker says nothing."""


class Worker:
    """A worker process; it prints what it does line by line."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._told: queue.Queue[Told | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def hear(self, did: str, within_s: float) -> tuple[int, Any]:
        """Status and answer of what it did next. Raises StageFailure."""
        try:
            told = self._told.get(timeout=within_s)
        except queue.Empty:
            raise StageFailure(f"{self.name} told nothing for {within_s:g} s") from None
        if told is None or told.did != did:
            raise StageFailure(f"{self.name} ended before its {did}")
        return told.status, msgspec.json.decode(told.answer)

    def freeze(self, within_s: float = 5.0) -> bool:
        """Stop the process as it stands; whether the kernel says that it is stopped."""
        self._process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + within_s
        while (state := process_state(self.pid)) != "stopped":
            if time.monotonic() > deadline:
                return state == "unknown"  # no /proc here to ask
            time.sleep(POLL_S)
        return True

    def wake(self) -> None:
        """Let it go on, as if no time had passed."""
        self._process.send_signal(signal.SIGCONT)

    def _read(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                with contextlib.suppress(msgspec.MsgspecError):
                    self._told.put(_decode(line))
        self._told.put(None)


class Stage:
    """A context manager; `url` is the service that plays, its own or the one it was given."""

    def __init__(self, url: str = "", token: str | None = None) -> None:
        self.url = url
        self._token = token
        self._folder: Path | None = None
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
        try:
            if not self.url:
                self.url = self._start_service(self._folder)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> Path | None:
        """Where everything is, until the end."""
        return self._folder

    def connect(self) -> httpx.Client:
        """A client of the service."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=10)

    def worker(self, name: str, kind: str, *, lease_s: float, work_s: float) -> Worker:
        """Start a worker."""
        module = ("-m", "service.ops.demo.worker")
        arguments = (self.url, name, kind, str(lease_s), str(work_s))
        extra = {TOKEN: self._token} if self._token else {}
        process = self._launch([*module, *arguments], subprocess.PIPE, **extra)
        return Worker(name, process)

    def close(self) -> None:
        """End everything and remove the folder; a second Ctrl-C does not cut it short."""
        with _undisturbed():
            for process in reversed(self._processes):
                _end(process)
            self._processes = []
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _start_service(self, folder: Path) -> str:
        data = folder / "data"
        with (folder / "service.log").open("wb") as output:
            serve = ["-m", "service", "serve", "--roles", "api,daemons", "--data-dir", str(data)]
            ports = {"HOLDFAST_HTTP__PORT": "0", "HOLDFAST_NATS__PORT": "0"}
            process = self._launch(serve, output, **ports, HOLDFAST_SAMPLE__ENABLED="false")
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and process.poll() is None:
            holder = read_holder(data)
            if holder is not None and holder.http_url and _is_ready(holder.http_url):
                return holder.http_url
            time.sleep(POLL_S)
        last = (folder / "service.log").read_text(errors="replace").strip().splitlines()[-3:]
        raise StageFailure(f"the service did not start: {' '.join(last)}")

    def _launch(
        self, arguments: list[str], output: IO[bytes] | int, **extra: str
    ) -> subprocess.Popen[bytes]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("HOLDFAST_") and name != "NATS_URL"
        }
        process = subprocess.Popen(
            dying_with_parent(sys.executable, *arguments),
            env={**kept, "PYTHONPATH": str(CHECKOUT), **extra},
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL if output is subprocess.PIPE else subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process only: it ends them in order
        )
        self._processes.append(process)
        return process


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).is_success
    except httpx.HTTPError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)  # a frozen process takes no other signal
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def _undisturbed() -> Any:  # noqa: ANN401 - a context manager
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
