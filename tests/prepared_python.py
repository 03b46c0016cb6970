"""Python programs as processes that begin with the service's modules imported.

Importing them takes most of the processor time of a start, and the tests start hundreds. So each
test run keeps one process that has imported them and does nothing else; a program is a fork of it,
under a process id, with descriptors, an environment and an end of its own. Tests of how Python
itself begins (`-m service` in odd surroundings, preloaded libraries) start it anew.
"""

import gc
import io
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from multiprocessing import connection, forkserver, get_context
from pathlib import Path

from service.runtime.child_process import end_with_parent

IMPORTED = (
    __name__,
    "service.cli.serve",
    "service.cli.doctor",
    "service.cli.events",
    "service.cli.rebuild",
    "holdfast_worker",
)

_FORKS = get_context("forkserver")
# The standard library's bookkeeping of children is not made for several threads.
_BOOKS = threading.Lock()


class PreparedProcess:
    """`python -m MODULE ARGUMENTS…`, with what is used of `subprocess.Popen`.

    What it prints is added to ``output``, its errors to ``errors`` or there, too. It dies with this
    process, however that ends.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str],
        folder: Path,
        output: Path,
        errors: Path | None = None,
    ) -> None:
        self._module = module
        files = (str(output), str(errors or output))
        for file in files:
            Path(file).touch()
        said = (module, arguments, dict(environment), str(folder), *files)
        self._process = _FORKS.Process(target=_become, args=said, daemon=True)
        with _BOOKS:
            _import_once()
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code, -N if signal N has ended it, None while it runs."""
        with _BOOKS:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended; raises TimeoutExpired."""
        connection.wait([self._process.sentinel], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self._module, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_prepared(
    module: str,
    *arguments: str,
    environment: Mapping[str, str],
    folder: Path | None = None,
    within_s: float = 60,
    apart: bool = True,
) -> "subprocess.CompletedProcess[bytes]":
    """A program from its start to its end, with what it has printed; raises TimeoutExpired.

    Not ``apart``: its errors stand in its output, where it has printed them.
    """
    with tempfile.TemporaryDirectory() as made:
        output = Path(made, "output")
        errors = Path(made, "errors") if apart else output
        process = PreparedProcess(
            module,
            *arguments,
            environment=environment,
            folder=folder or Path.cwd(),
            output=output,
            errors=errors,
        )
        try:
            code = process.wait(within_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(
            (module, *arguments), code, output.read_bytes(), errors.read_bytes() if apart else b""
        )


@cache
def _import_once() -> None:
    """Start the process that has imported everything; Python 3.11 does not tell it our path."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    forkserver.set_forkserver_preload(list(IMPORTED))
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def _become(
    module: str,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    folder: str,
    output: str,
    errors: str,
) -> None:
    """Run ``module`` as its own process would; its end is this process's end."""
    end_with_parent()
    for dice in [each for each in gc.get_objects() if isinstance(each, random.Random)]:
        dice.seed()  # or all instances would make the same trace ids
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _open_streams(output, errors)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _open_streams(output: str, errors: str) -> None:
    """The three standard streams anew, and no other descriptor."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    wanted = [os.open(os.devnull, os.O_RDONLY), os.open(output, append), os.open(errors, append)]
    for place, descriptor in enumerate(wanted):
        os.dup2(descriptor, place)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # among them what keeps the process it came from
    sys.stdout = sys.__stdout__ = _unbuffered(1, "strict")
    sys.stderr = sys.__stderr__ = _unbuffered(2, "backslashreplace")


def _unbuffered(descriptor: int, on_error: str) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors=on_error, write_through=True)
