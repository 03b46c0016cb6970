"""Nothing that arrives holds the API loop: the longest step of an instance under its largest asks.

Each step is measured in processor time of the loop's thread, so neighbours of the machine do not
count; and against a piece of work of known size, so a slow machine has more time.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Struct

from tests.waiting import until

HELD_MS = 20.0  # on a machine that counts `WORK` numbers in `WORK_MS`
WORK, WORK_MS = 1_000_000, 35.0
FLOOR_MS = 5.0
TASKS = 10_000
MEBIBYTE = 1024 * 1024 - 300
JSON = {"content-type": "application/json"}
SHAPES = ("[]", '{"a":1}', "1", '""', r'"\u00e9"', "1.5e3", "1.2345678901234567890123e-300", "[[]]")


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
        began = time.monotonic()
        status = self.client.request(method, path, content=content, headers=JSON).status_code
        self.client.get("/healthz")
        steps = [step for step in self._steps() if step.ended_at >= began]
        self.longest[name] = max(steps, key=lambda step: step.took_ms, default=Step(0, 0, ""))
        return status

    def post(self, name: str, path: str, value: object) -> int:
        return self.ask(name, "POST", path, json.dumps(value).encode())

    def _steps(self) -> Generator[Step]:
        for line in self._file.read_text().splitlines():
            ended_at, took_ms, where = line.split(" ", 2)
            yield Step(float(ended_at), float(took_ms), where)


def allowed_ms() -> float:
    """`HELD_MS`, more on a machine that is slower than the one that it was set on."""

    def took_ms() -> float:
        began = time.thread_time()
        sum(number for number in range(WORK))
        return (time.thread_time() - began) * 1000

    return HELD_MS * max(min(took_ms() for _ in range(3)) / WORK_MS, 1.0)


@pytest.fixture
def measured(tmp_path: Path) -> Generator[Measured]:
    command = [sys.executable, "-m", "tests.integration.stepping_instance"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, str(tmp_path), str(FLOOR_MS)], stdout=log, stderr=log, env=dict(os.environ)
        )
    try:
        until(lambda: (tmp_path / "address").exists() or process.poll() is not None, 60)
        url = (tmp_path / "address").read_text()
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Measured(tmp_path, client, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def plan(name: str, count: int, depends_on: tuple[str, ...] = ()) -> dict[str, Any]:
    first = {"id": "t0", "kind": "k"}
    others = [{"id": f"t{n}", "kind": "k", "depends_on": depends_on} for n in range(1, count)]
    return {"id": name, "tasks": [first, *others]}


def chain(count: int) -> dict[str, Any]:
    links = [{"id": f"t{n}", "kind": "k", "depends_on": [f"t{n - 1}"]} for n in range(1, count)]
    return {"id": "chain", "tasks": [{"id": "t0", "kind": "k"}, *links]}


def matrix(roots: int, leaves: int) -> dict[str, Any]:
    names = [f"t{n}" for n in range(roots)]
    tasks = [{"id": name, "kind": "k"} for name in names]
    ends = [{"id": f"u{n}", "kind": "k", "depends_on": names} for n in range(leaves)]
    return {"id": "matrix", "tasks": tasks + ends}


def of_a_mebibyte(part: str) -> bytes:
    return f"[{','.join([part] * (MEBIBYTE // (len(part) + 1)))}]".encode()


def ask_about_large_plans(it: Measured) -> None:
    wide, fan = plan("wide", TASKS), plan("fan", TASKS, ("t0",))
    for each in (wide, fan, chain(TASKS), matrix(900, 130)):
        name = each["id"]
        assert it.post(f"submit {name}", "/v1/plans", each) == 201
        assert it.post(f"repeat {name}", "/v1/plans", each) == 200
    claim = {"owner": "w"}
    for name in ("fan", "chain"):
        task = f"/v1/plans/{name}/tasks/t0"
        assert it.post(f"claim {name}", f"{task}/claim", claim) == 200
        failed = {"owner": "w", "attempt": 1, "error_type": "E", "retryable": False}
        assert it.post(f"fail {name}", f"{task}/fail", failed) == 200
        assert it.ask(f"why {name}", "GET", f"/v1/plans/{name}/why") == 200
        assert it.post(f"retry {name}", f"/v1/plans/{name}/retry", {}) == 200
        assert it.post(f"claim {name} again", f"{task}/claim", claim) == 200
        done = {"owner": "w", "attempt": 2, "output": 1}
        assert it.post(f"complete {name}", f"{task}/complete", done) == 200
    for path in ("wide", "wide?at_sequence=1", "wide/tasks", "wide/tasks/t77/why"):
        assert it.ask(path, "GET", f"/v1/plans/{path}") == 200
    assert it.post("claims", "/v1/claims", {"owner": "v", "limit": 500, "kinds": ["k"]}) == 200
    for action in ("pause", "resume", "cancel"):
        for name in ("wide", "fan", "chain", "matrix"):
            assert it.post(f"{action} {name}", f"/v1/plans/{name}/{action}", {}) == 200


def ask_with_large_bodies(it: Measured) -> None:
    tasks = [{"id": f"t{n}", "kind": "large"} for n in range(len(SHAPES))]
    assert it.post("submit large", "/v1/plans", {"id": "large", "tasks": tasks}) == 201
    for n, part in enumerate(SHAPES):
        value = of_a_mebibyte(part)
        body = b'{"context":%b,"tasks":[{"id":"t","kind":"k"}]}' % value
        status = it.ask(f"context of {part}", "POST", "/v1/plans", body)
        task = f"/v1/plans/large/tasks/t{n}"
        assert it.post("claim", f"{task}/claim", {"owner": "w"}) == 200
        ends = [b'{"owner":"w","attempt":1,"output":%b%b}' % (gap, value) for gap in (b"", b" ")]
        for body in ends:
            ended = it.ask(f"output of {part}", "POST", f"{task}/complete", body)
            assert (status, ended) in ((201, 200), (400, 400))
    twice = of_a_mebibyte('{"a":1,"a":2}')
    assert it.ask("keys that stand twice", "POST", "/v1/plans", twice) == 400
    deep = b"[" * (MEBIBYTE // 2) + b"]" * (MEBIBYTE // 2)
    assert it.ask("depth", "POST", "/v1/plans", deep) == 400


def test_no_request_holds_the_loop_for_twenty_milliseconds(measured: Measured) -> None:
    ask_about_large_plans(measured)
    ask_with_large_bodies(measured)
    most = allowed_ms()
    held = {name: step for name, step in measured.longest.items() if step.took_ms > most}
    assert not held
