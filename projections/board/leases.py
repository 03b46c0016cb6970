"""How long leases and attempts surely still run, whatever is done to the log server's clock.

A lease ends at a time of the log's clock: the time of its fact plus its duration. When that clock
is set forward, leases would all end at once. So each also lasts as long as it was granted for by
this process's monotonic clock, from the moment that its fact was folded. When the clock is set
back, a claim on an expired lease would be ignored until the clock has come as far again, so none
is made before. The time-out of an attempt is measured by the monotonic clock in the same way.
`decide` and `evolve` judge by the log's clock alone, and the same everywhere.
"""

from typing import Protocol

import msgspec

from streams.plan.state import Task


class Clock(Protocol):
    """The two clocks; see `service.core.log_clock.LogClock`."""

    def monotonic(self) -> float:
        """The monotonic clock of this process, in seconds."""
        ...

    def stream_now(self) -> float:
        """What the log's clock shows, in seconds since the epoch."""
        ...


class Granted(msgspec.Struct, frozen=True, gc=False):
    """A lease until ``until`` by the log's clock, and until ``ends`` by the monotonic one."""

    until: float
    ends: float


class Began(msgspec.Struct, frozen=True, gc=False):
    """An attempt that began at ``at`` by the log's clock, and at ``local`` by the monotonic one."""

    at: float
    local: float


class Leases:
    """The leases and attempts that run, by the identity of their task."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._granted: dict[int, Granted] = {}
        self._began: dict[int, Began] = {}

    def note(self, task: Task) -> None:
        """Take in the lease of a RUNNING task; called whenever it may have been renewed."""
        at, began = task.began_at, self._began.get(id(task))
        if at is not None and (began is None or began.at != at):
            self._note_beginning(task, at)
        until = task.lease_until
        known = self._granted.get(id(task))
        if until is None or (known is not None and known.until == until):
            return
        # What is read late, as at a start, has run for a part of its time already.
        age_s = max(0.0, self._clock.stream_now() - (until - task.lease_s))
        left_s = max(0.0, task.lease_s - age_s)
        self._granted[id(task)] = Granted(until, self._clock.monotonic() + left_s)

    def _note_beginning(self, task: Task, at: float) -> None:
        age_s = max(0.0, self._clock.stream_now() - at)
        self._began[id(task)] = Began(at, self._clock.monotonic() - age_s)

    def forget(self, task: Task) -> None:
        """The task runs no more."""
        self._granted.pop(id(task), None)
        self._began.pop(id(task), None)

    def ran_s(self, task: Task) -> float:
        """For how many seconds the running attempt has surely run; 0 where none does."""
        began = self._began.get(id(task))
        return 0.0 if began is None else self._clock.monotonic() - began.local

    def left_s(self, task: Task) -> float:
        """For how many seconds no other may take the lease over; 0 or less when it is over."""
        granted = self._granted.get(id(task))
        if granted is None:
            return 0.0
        clock = self._clock
        return max(granted.ends - clock.monotonic(), granted.until - clock.stream_now())
