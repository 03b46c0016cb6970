"""An instance whose loop writes down its long steps, and how long a step may be.

Each step is measured in processor time of the loop's thread, so neighbours of the machine do not
count; and against the machine's own speed. What holds the loop too long is asked for again, of
another instance: what the code does, it does each time.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from msgspec import Struct

from tests.loop_time import slowness
from tests.waiting import until

HELD_MS = 20.0
FLOOR_MS = 5.0
TRIES = 3
JSON = {"content-type": "application/json"}
T = TypeVar("T")


class Step(Struct, frozen=True):
    """One long step of the loop."""

    ended_at: float
    took_ms: float
    where: str


class Measured:
    """An instance whose loop writes down its long steps, and a client of it."""

    def __init__(
        self, folder: Path, client: httpx.Client, process: subprocess.Popen[bytes]
    ) -> None:
        self.client = client
        self.process = process
        self.longest: dict[str, Step] = {}
        self._file = folder / "steps"

    def ask(self, name: str, method: str, path: str, content: bytes | None = None) -> int:
        """The status of one answer; the longest step until then is its own."""
        return self._asked(name, method, path, content).status_code

    def get(self, name: str, path: str) -> Any:
        """What one answer says, which must be a good one."""
        return self._asked(name, "GET", path).raise_for_status().json()

    def answer(self, name: str, path: str, value: object) -> Any:
        """What the answer to a POST says, which must be a good one."""
        return self._asked(name, "POST", path, json.dumps(value).encode()).raise_for_status().json()

    def during(self, name: str, work: Callable[[], T]) -> T:
        """What ``work`` answers; the longest step until then counts for ``name``."""
        began = time.monotonic()
        done = work()
        self.client.get("/healthz")
        steps = [step for step in self._steps() if step.ended_at >= began]
        longest = self.longest.get(name, Step(0, 0, ""))
        self.longest[name] = max((longest, *steps), key=lambda step: step.took_ms)
        return done

    def _asked(
        self, name: str, method: str, path: str, content: bytes | None = None
    ) -> httpx.Response:
        return self.during(
            name, lambda: self.client.request(method, path, content=content, headers=JSON)
        )

    def post(self, name: str, path: str, value: object) -> int:
        return self.ask(name, "POST", path, json.dumps(value).encode())

    def held_too_long(self) -> dict[str, Step]:
        """What held the loop for longer than it may."""
        most = HELD_MS * slowness()
        return {name: step for name, step in self.longest.items() if step.took_ms > most}

    def _steps(self) -> Generator[Step]:
        for line in self._file.read_text().splitlines():
            ended_at, took_ms, where = line.split(" ", 2)
            yield Step(float(ended_at), float(took_ms), where)


def held_each_time(folder: Path, *stories: Callable[[Measured], None]) -> dict[str, Step]:
    """What holds the loop for longer than it may each time that the stories run."""
    held: dict[str, Step] = {}
    for number in range(TRIES):
        with stepping(folder / f"instance-{number}") as measured:
            for story in stories:
                story(measured)
            found = measured.held_too_long()
        held = {name: step for name, step in found.items() if number == 0 or name in held}
        if not held:
            break
    return held


@contextmanager
def stepping(folder: Path) -> Generator[Measured]:
    """Such an instance with its data in ``folder``, which is made."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.integration.stepping_instance"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, str(folder), str(FLOOR_MS)], stdout=log, stderr=log, env=dict(os.environ)
        )
    try:
        until(lambda: (folder / "address").exists() or process.poll() is not None, 60)
        url = (folder / "address").read_text()
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Measured(folder, client, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def plan(name: str, count: int, depends_on: tuple[str, ...] = ()) -> dict[str, Any]:
    """A plan of so many tasks; all but the first wait for ``depends_on``."""
    first = {"id": "t0", "kind": "k"}
    others = [{"id": f"t{n}", "kind": "k", "depends_on": depends_on} for n in range(1, count)]
    return {"id": name, "tasks": [first, *others]}
