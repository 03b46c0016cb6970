"""What the kernel says of processes, and scripts that start without any package."""

import os
import subprocess
import sys
from pathlib import Path

from service.executor.handlers import guardian
from service.executor.handlers.command_line import CommandLine
from service.runtime import child_process
from service.runtime.child_process import family, process_state, session
from service.settings.config import CommandSettings
from tests.waiting import until


def test_states_and_families_of_processes() -> None:
    parent = subprocess.Popen(["/bin/sh", "-c", "sleep 60 & wait"], start_new_session=True)
    try:
        (child,) = until(lambda: family(parent.pid), 10, "the shell has a child")
        assert child in family(os.getpid())
        assert session(parent.pid) == [child]
        assert process_state(parent.pid) in set("SR")
    finally:
        for pid in (*family(parent.pid), parent.pid):
            os.kill(pid, 9)
    until(lambda: process_state(parent.pid) == "Z", 10, "it has ended and waits to be reaped")
    parent.wait()
    assert process_state(parent.pid) == ""
    assert family(parent.pid) == []


def test_a_guardian_needs_no_package(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    bounds = CommandLine("x", CommandSettings(argv=("true",))).bounds(str(tmp_path))
    program = [bounds, sys.executable, "python", "-c", "print('done')"]
    ran = subprocess.run(
        [sys.executable, "-I", "-S", guardian.__file__, str(reading), *program],
        cwd=tmp_path,
        pass_fds=[reading],
        capture_output=True,
        timeout=30,
        check=False,
    )
    os.close(reading)
    os.close(writing)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"done\n", b"")


def test_a_program_that_cannot_be_started_is_named() -> None:
    ran = subprocess.run(
        child_process.dying_with_parent("/no/such/program"),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == child_process.CANNOT_RUN
    assert ran.stderr == b"/no/such/program: No such file or directory\n"
