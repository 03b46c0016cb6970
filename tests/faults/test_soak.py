"""A soak: plans of all shapes at a steady rate, with restarts; what an instance takes stays level.

Plans that ended are forgotten after seconds, so that what there is to keep does not grow. The long
form wants 2 million tasks in 20 minutes, in four lives of five minutes, and compares the end of
the second with the end of the fourth. `HOLDFAST_SOAK_S` gives another length, with as many tasks
for each second; how many there were is reported.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from service.runtime.child_process import dying_with_parent
from tests.faults.report import Report
from tests.faults.service_process import ROOT, ServiceProcess, environment, run_holdfast, until
from tests.faults.soak_watch import Levels, Watch
from tests.ports import free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7_200)]

SHORT_S, LONG_S = 12.0, 1_200.0
TASKS_PER_S = 2_000_000 / LONG_S
SHORT_TASKS_PER_S = 200.0  # the short form runs beside others
SHORT_LIVES, LONG_LIVES = 2, 4  # the first and the third end in a crash
LOOKED_AT = 0.4  # of a life: its end
FINISH_S, VERIFY_S = 90.0, 180.0
KEEP_S = 10.0  # plans that ended
DAY_S = 86_400.0
MORE = 1.1  # than in the middle of the soak
MORE_AT_LEAST = Levels(10, 10, 10, 10, 0.003, 0.003, inf)  # what is no growth of a low level
SHORT_MORE = Levels(80, 80, 40, 120, inf, inf, inf)  # no measure of time on a busy machine


class Load:
    """`tests.faults.soak_load` in a process of its own."""

    def __init__(self, port: int, rate: float) -> None:
        command = dying_with_parent(
            sys.executable, "-m", "tests.faults.soak_load", str(port), str(rate)
        )
        self._process = subprocess.Popen(
            command, env=environment(), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.ended = 0
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    @property
    def is_under_way(self) -> bool:
        return self._process.poll() is None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.ended = int(line)

    def finish(self, within_s: float) -> int:
        """Let it end what it has submitted; its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(within_s)
        self._reading.join(10)
        return code

    def stop(self) -> None:
        self._process.kill()
        self._reading.join(10)
        with self._process:
            pass  # closes its pipes, and waits


@contextmanager
def loaded(service: ServiceProcess, rate: float) -> Iterator[Load]:
    load = Load(httpx.URL(service.url).port or 0, rate)
    try:
        yield load
    finally:
        load.stop()


class Form(NamedTuple):
    """How long, how fast and in how many lives; by what a level may grow: a sum, or a factor."""

    seconds: float
    tasks_per_s: float
    lives: int
    allowed: Levels
    factor: float

    @property
    def life_s(self) -> float:
        return self.seconds / self.lives

    def grown(self, levels: list[Levels]) -> dict[str, tuple[float, float]]:
        """What is higher at the end than in the middle, before and after.

        Times may be longer by as much as the machine became slower for everything.
        """
        middle, end = levels[self.lives // 2 - 1], levels[-1]
        slower = max(end.machine_s / middle.machine_s, 1)
        found: dict[str, tuple[float, float]] = {}
        fields = zip(Levels._fields, middle, end, self.allowed, strict=True)
        for name, before, after, more in fields:
            most = max(before * self.factor, before + more)
            if after > most * (slower if name.endswith("_s") else 1):
                found[name] = before, after
        return found


def form(*, long_faults: bool) -> Form:
    given = os.environ.get("HOLDFAST_SOAK_S")
    if not (given or long_faults):
        return Form(SHORT_S, SHORT_TASKS_PER_S, SHORT_LIVES, SHORT_MORE, 1)
    return Form(float(given or LONG_S), TASKS_PER_S, LONG_LIVES, MORE_AT_LEAST, MORE)


def lived(wanted: Form, service: ServiceProcess, load: Load, watch: Watch) -> Iterator[Levels]:
    """What each life takes at its end; then it is ended, and the next one begins."""
    for number in range(wanted.lives):
        if number:
            if number % 2:
                service.kill()
            else:
                assert service.terminate() == 0
            service.start()
        until_s = time.monotonic() + wanted.life_s
        while (now := time.monotonic()) < until_s:
            assert load.is_under_way
            time.sleep(min(0.2, until_s - now))
        yield watch.levels(until_s - wanted.life_s * LOOKED_AT)


def test_what_an_instance_takes_stays_level(
    tmp_path: Path, report: Report, *, long_faults: bool
) -> None:
    wanted, levels = form(long_faults=long_faults), list[Levels]()
    service = ServiceProcess(
        tmp_path / "data",
        module="tests.faults.short_memory",
        http__port=str(free_port()),
        retention__finished_days=str(KEEP_S / DAY_S),
        nats__audit_max_bytes=str(2**20),
    )
    try:
        service.start()
        kept = {"id": "kept", "tasks": [{"id": "t", "kind": "of-no-worker"}]}
        httpx.post(f"{service.url}/v1/plans", json=kept).raise_for_status()
        with (
            Watch(service, "/v1/plans/kept") as watch,
            loaded(service, wanted.tasks_per_s) as load,
        ):
            for life in lived(wanted, service, load, watch):
                levels.append(life)
                name = f"life {len(levels)} of {wanted.lives}, {wanted.life_s:g} s"
                report.add("soak", name, **life._asdict(), tasks=load.ended)
            assert load.finish(FINISH_S) == 0
        verify = partial(run_holdfast, "rebuild", "--verify", within_s=VERIFY_S)
        until(
            lambda: verify(data_dir=str(service.data_dir))[0] == 0,
            VERIFY_S,
            "the read models equal the log",
        )
    finally:
        service.stop()
    assert wanted.grown(levels) == {}
