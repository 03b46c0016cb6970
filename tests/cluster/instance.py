"""One Holdfast instance: a process on a port that stays, with a clock that can be wrong."""

import shutil
import signal
import subprocess
from pathlib import Path

import psutil

from tests.cluster.ports import HOST
from tests.faults.service_process import ServiceProcess

CLOCK = "HOLDFAST_TEST_WALL_CLOCK"
# The first two have executors; the third serves only, as one behind a load balancer may.
ROLES = {1: "api,executor,daemons", 2: "api,executor,daemons", 3: "api,daemons"}


def build_wall_clock(folder: Path) -> Path:
    """The library of wall_clock.c, compiled."""
    compiler = shutil.which("gcc")
    assert compiler, "there is no gcc"
    library = folder / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Werror")
    subprocess.run([compiler, *flags, "-o", str(library), str(source)], check=True, timeout=60)
    return library


class Instance(ServiceProcess):
    """Instance ``number`` at a cluster; see `ServiceProcess`."""

    def __init__(
        self, number: int, folder: Path, *, nats_url: str, port: int, clock: Path, module: str
    ) -> None:
        self.number = number
        self.address = f"http://{HOST}:{port}"
        self._clock = folder / f"clock-{number}"
        self.set_clock(0)
        super().__init__(
            folder / f"instance-{number}",
            nats_url=nats_url,
            roles=ROLES[number],
            preload=str(clock),
            module=module,
            http__port=str(port),
            nats__replicas="3",
            executor__instance_id=f"instance-{number}",
            test_wall_clock=str(self._clock),
        )

    @property
    def running(self) -> bool:
        """Whether the process is there; it may be frozen."""
        return self._process is not None and self.exit_code is None

    def set_clock(self, ahead_s: int) -> None:
        """Let its wall clock be so many seconds ahead of the true time."""
        self._clock.write_text(f"{ahead_s}\n", encoding="utf-8")

    def freeze(self) -> None:
        """As a machine that is suspended, with everything that it started."""
        self._send_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send_all(signal.SIGCONT)

    def ask_to_end(self) -> None:
        """SIGTERM; does not wait."""
        self.send(signal.SIGTERM)

    def _send_all(self, number: signal.Signals) -> None:
        if self.running:
            process = psutil.Process(self.pid)
            for each in (process, *process.children(recursive=True)):
                each.send_signal(number)
