"""Lets many handlers run in threads only while the interpreter is to be had.

Threads that compute in pure Python take turns, so more than a few of them do nothing sooner, and
each makes every loop of this process wait for one turn more: with 64 the heartbeats came seconds
late and leases were lost. So a few handlers run at once whatever they do, and each further one
starts only after a loop has come round in time. Handlers that wait pass as fast as they come;
those that compute queue up, their leases kept alive meanwhile.
"""

import asyncio
from threading import Lock
from time import monotonic

ALWAYS = 8  # the default size of the pool: nothing changes for those
PROBE_S = 0.02
LONGEST_PROBE_S = 0.32
IN_TIME_S = 0.005
CLOSED_S = 0.3
AT_A_TIME = 4  # further ones that start per PROBE_S


class Gate:
    """Shared by every dispatcher of a process; each waits on its own loop."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._opens_at = 0.0

    @property
    def has_room(self) -> bool:
        """Whether `enter` would not wait."""
        return self._inside < ALWAYS

    async def enter(self) -> None:
        """Wait until one more handler may run; `leave` afterwards."""
        probe_s = PROBE_S
        while not self._pass(ALWAYS):
            due_at = monotonic() + probe_s
            await asyncio.sleep(probe_s)
            if monotonic() - due_at > IN_TIME_S:
                # One late attempt proves it for all: of many that try, some always succeed.
                self._opens_at = monotonic() + CLOSED_S
                probe_s = min(probe_s * 2, LONGEST_PROBE_S)
            elif self._pass(None):
                return

    def leave(self) -> None:
        """A handler has ended. Any thread may call this."""
        with self._lock:
            self._inside -= 1

    def _pass(self, most: int | None) -> bool:
        """Go in if fewer than ``most`` are inside, or if it is another one's turn (None)."""
        with self._lock:
            now = monotonic()
            if most is not None and self._inside >= most:
                return False
            if most is None and now < self._opens_at:
                return False
            if most is None:
                self._opens_at = max(self._opens_at, now) + PROBE_S / AT_A_TIME
            self._inside += 1
            return True
