"""What the tests of the worker kit share: worker programs, a link that can be cut, short times."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from holdfast_worker import Limits
from service.runtime.child_process import dying_with_parent
from tests.faults.service_process import ROOT, environment
from tests.waiting import until

SHORT = Limits(
    wait_s=2, grace_s=0.5, drain_s=1, request_s=2, longest_pause_s=0.5, interpreter_held_s=0.5
)


class WorkerProgram:
    """`tests.integration.kit_worker` as a process; its lines arrive in `lines`."""

    def __init__(self, url: str, name: str, lease_s: float) -> None:
        self.lines: list[str] = []
        module = "tests.integration.kit_worker"
        self.process = subprocess.Popen(
            dying_with_parent(sys.executable, "-m", module, url, name, str(lease_s)),
            cwd=ROOT,
            env=environment() | {"PYTHONPATH": f"{ROOT}:{ROOT}/service/worker_kit/src"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line.strip())

    def count(self, beginning: str) -> int:
        return sum(line.startswith(beginning) for line in list(self.lines))

    def said(self, beginning: str, within_s: float = 20) -> str:
        """The first line with this beginning."""

        def found() -> list[str]:
            return [line for line in list(self.lines) if line.startswith(beginning)]

        try:
            return until(found, within_s)[0]
        except AssertionError:
            raise AssertionError(f"no line {beginning!r} in {self.lines}") from None

    def ended(self, within_s: float = 20) -> dict[str, int]:
        """Its counters, once it has ended by itself."""
        assert self.process.wait(within_s) == 0, self.lines
        return json.loads(self.said("counters").split()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)


class Link:
    """A TCP link to a server that can be cut: bytes stay where they are, in both directions."""

    def __init__(self, url: str) -> None:
        program = str(Path(ROOT) / "tests" / "cluster" / "proxy.py")
        self._process = subprocess.Popen(
            dying_with_parent(sys.executable, program, f"http={url.rsplit(':', 1)[1]}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = f"http://127.0.0.1:{self._answer()['http']}"

    def order(self, mode: str) -> None:
        """``cut``, ``refuse`` or ``open``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"mode": {"http": mode}}) + "\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
