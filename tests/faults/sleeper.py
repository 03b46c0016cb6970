"""How late this machine makes a process that does nothing: what a busy machine costs all others."""

import subprocess
import sys
from typing import Self

from tests.faults.report import percentile

# It tells all at its end: a pipe that nothing reads for minutes would be full and stop it.
SLEEPER = """
import signal
import sys
import time

late = []

def tell(*_):
    print(*late, sep="\\n", flush=True)
    sys.exit()

signal.signal(signal.SIGTERM, tell)
due = time.monotonic()
while True:
    due += 0.05
    time.sleep(max(due - time.monotonic(), 0))
    now = time.monotonic()
    late.append(now - due)
    due = max(due, now - 0.05)
"""


class Sleeper:
    """A process that only sleeps: how late it wakes is what this machine costs every process."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-c", SLEEPER]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        said = self._process.communicate()[0]
        late = [float(line) for line in said.split()] or [0.0]
        self.p99_s, self.worst_s = percentile(late, 0.99), max(late)
