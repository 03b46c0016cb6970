"""Stops a process so that it does nothing more, as a stalled machine."""

import os
import signal
from pathlib import Path

from tests.waiting import until


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until each of its threads has stopped; SIGCONT lets it go on.

    The kernel gives the signal to one thread. On a busy machine the others run on until that one
    has had its turn, and a server answers meanwhile.
    """
    os.kill(pid, signal.SIGSTOP)
    until(lambda: all(map(_stands, _threads(pid))), what=f"process {pid} stands still")


def _threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def _stands(thread: Path) -> bool:
    try:
        state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True  # it has ended meanwhile
    return state in "TtZX"
