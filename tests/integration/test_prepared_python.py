"""A prepared process is like one that Python has just started: streams, environment, its end."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.service_process import ROOT, environment, is_gone
from tests.prepared_python import PreparedProcess, run_prepared
from tests.waiting import until

PROGRAM = "tests.integration.telling_program"
# A test run that starts one, tells its process id and is shot.
SHOT = f"""
import os, signal, sys
from pathlib import Path
from tests.prepared_python import PreparedProcess
place = Path(sys.argv[1])
print(PreparedProcess("{PROGRAM}", "wait", environment={{}}, folder=place, output=place / "o").pid)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_its_arguments_environment_folder_and_files_are_its_own(tmp_path: Path) -> None:
    told = [
        run_prepared(PROGRAM, "3", environment={"MARK": mark}, folder=tmp_path)
        for mark in ("one", "two")
    ]
    assert [(each.returncode, each.stderr) for each in told] == [(3, b"an error\n")] * 2
    one, two = (json.loads(each.stdout) for each in told)
    assert one.pop("trace") != two.pop("trace"), "each has dice of its own"
    assert (one.pop("mark"), two.pop("mark")) == ("one", "two")
    assert one == two
    assert one["arguments"] == ["3"]
    assert (one["variables"], one["folder"], one["files"]) == (1, str(tmp_path), [])
    anew = subprocess.run(
        [sys.executable, "-m", PROGRAM, "3"],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    # Where this run ignores SIGINT, as a job in the background does, both inherit that.
    assert one["interrupted"] == json.loads(anew.stdout)["interrupted"], "Ctrl-C does the same"
    assert one["prepared"], "what takes long is imported already"


def test_a_signal_ends_it_and_is_its_exit_code(tmp_path: Path) -> None:
    output = tmp_path / "output"
    process = PreparedProcess(PROGRAM, "wait", environment={}, folder=tmp_path, output=output)
    until(lambda: output.exists() and b"\n" in output.read_bytes(), what="it has begun")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    assert process.poll() is None
    process.kill()
    assert process.wait(20) == -signal.SIGKILL
    assert is_gone(process.pid)


def test_it_dies_with_a_test_run_that_is_shot(tmp_path: Path) -> None:
    shot = subprocess.run(
        [sys.executable, "-c", SHOT, str(tmp_path)],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert shot.returncode == -signal.SIGKILL
    until(lambda: is_gone(int(shot.stdout)), what="the program is gone")
