"""What the kernel says of processes that a data folder names: there, stopped, or gone."""

from pathlib import Path
from typing import Literal

import msgspec

from service.runtime import child_process
from service.runtime.data_folder import PreviousHolder, last_trace

ProcessState = Literal["running", "stopped", "gone", "unknown"]

# By the kernel's letter; every other one is a process that runs or waits.
_STATES: dict[str, ProcessState] = {
    "": "gone", "Z": "gone", "X": "gone", "T": "stopped", "t": "stopped", "?": "unknown",
}  # fmt: skip


class FolderHolding(msgspec.Struct, frozen=True, kw_only=True):
    """The process that holds or last held a data folder, and the states of its processes."""

    data_dir: Path
    trace: PreviousHolder | None
    state: ProcessState
    nats_pid: int | None
    nats_state: ProcessState

    @property
    def pid(self) -> int | None:
        """The instance's process."""
        holder = self.trace.holder if self.trace else None
        return holder.pid if holder else None

    @property
    def stopped_nats_pid(self) -> int | None:
        """The embedded server's process, if it is stopped."""
        return self.nats_pid if self.nats_state == "stopped" else None


def holding(data_dir: Path) -> FolderHolding:
    """Look at a data folder; blocks for the time of a few small reads."""
    trace = last_trace(data_dir)
    holder = trace.holder if trace else None
    nats_pid = _nats_pid(data_dir)
    return FolderHolding(
        data_dir=data_dir,
        trace=trace,
        state=process_state(holder.pid) if holder else "unknown",
        nats_pid=nats_pid,
        nats_state=process_state(nats_pid) if nats_pid else "unknown",
    )


def process_state(pid: int) -> ProcessState:
    """How a process is; "unknown" where the kernel cannot be asked."""
    return _STATES.get(child_process.process_state(pid), "running")


def _nats_pid(data_dir: Path) -> int | None:
    """The embedded server's process: it names a file of its own after it (nats_process.py)."""
    for file in (data_dir / "nats").glob("nats-server_*.ports"):
        digits = file.stem.rpartition("_")[2]
        if digits.isdecimal():
            return int(digits)
    return None
