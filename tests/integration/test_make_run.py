"""`make run` in a fresh checkout does real work at once and keeps serving, twice in a row."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path
from typing import Self

import httpx
import pytest

from service.runtime.data_folder import read_holder
from tests.faults.service_process import ROOT, environment, until

SAMPLE_S = 30.0
END_S = 30.0


def put_beside(file: Path, copy: Path) -> None:
    """Copy a file, and what Python has compiled of it: to do that again takes 4 s."""
    if not file.is_file():
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, copy)
    if file.suffix == ".py" and (compiled := Path(cache_from_source(str(file)))).is_file():
        kept = copy.parent / "__pycache__" / compiled.name
        kept.parent.mkdir(exist_ok=True)
        shutil.copy2(compiled, kept)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what git knows of this checkout, with this environment as its `.venv`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 - whichever git there is
        cwd=ROOT,
        capture_output=True,
        check=False,
    ).stdout.decode()
    if not listed or shutil.which("make") is None:
        pytest.skip("needs a git checkout and make")
    copy = tmp_path / "checkout"
    for name in filter(None, listed.split("\0")):
        put_beside(ROOT / name, copy / name)
    # Installing is not tested here: the environment is there, and newer than what it came from.
    (copy / ".venv").symlink_to(sys.prefix)
    os.utime(copy / "requirements.txt", (0, 0))
    if not (Path(sys.prefix) / "runtime.stamp").exists():
        pytest.skip("this environment was not made by make")
    return copy


class MakeRun:
    """`make run` in a terminal of its own, ended by Ctrl-C."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout
        self._output = checkout.parent / "output"
        variables = environment(http__port="0", nats__port="0")
        del variables["PYTHONPATH"]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                ["make", "run"],  # noqa: S607 - as one types it
                cwd=checkout,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def until_said(self, words: str, within_s: float) -> None:
        def is_said() -> bool:
            assert self._process.poll() is None, self.output
            return words in self.output

        until(is_said, within_s, words)

    def get(self, path: str) -> httpx.Response:
        holder = read_holder(self._checkout / "data")
        assert holder is not None
        return httpx.get(f"{holder.http_url}{path}").raise_for_status()

    def ctrl_c(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)
        self._process.wait(END_S)
        until(lambda: read_holder(self._checkout / "data") is None, END_S, "the folder is free")


@pytest.fixture
def running(checkout: Path) -> Iterator[MakeRun]:
    with MakeRun(checkout) as first:
        yield first


@pytest.mark.timeout(150)
def test_make_run_works_on_the_sample_plan_and_does_so_again(
    running: MakeRun, checkout: Path
) -> None:
    running.until_said("Ctrl-C ends it; the log stays.", SAMPLE_S)
    told = running.output
    for word in ("plan.submitted", "task.claimed", "task.completed", "plan.finished", "curl http"):
        assert word in told, told
    plan = running.get("/v1/plans/sample").json()
    assert plan["status"] == "COMPLETED"
    check = next(task for task in plan["tasks"] if task["task_id"] == "check")
    assert check["status"] == "COMPLETED"
    counted = [task for task in plan["tasks"] if task["task_id"].startswith("count-")]
    assert counted, "it counted this checkout's files"
    assert running.get("/readyz").json()["ready"]
    running.ctrl_c()
    assert "Traceback" not in running.output

    with MakeRun(checkout) as again:
        again.until_said("The log holds", SAMPLE_S)
        assert again.get("/v1/plans/sample").json() == plan
        again.ctrl_c()
        assert "Traceback" not in again.output
