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
    """A lease until ``until`` by the log's clock, and until ``ends`` by the monotonic one.

    Its attempt began at ``began_at`` by the log's clock, and at ``began`` by the monotonic one.
    """

    began_at: float | None
    began: float
    until: float
    ends: float


class Leases:
    """The leases and attempts that run, by the identity of their task."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._granted: dict[int, Granted] = {}

    def note(self, task: Task) -> None:
        """Take in the lease of a RUNNING task; called whenever it may have been renewed."""
        known = self._granted.get(id(task))
        began_at, until = task.began_at, task.lease_until
        if until is None:
            return
        if known is not None and known.until == until and known.began_at == began_at:
            return
        # What is read late, as at a start, has run for a part of its time already.
        now, local = self._clock.stream_now(), self._clock.monotonic()
        began = local - max(0.0, now - (began_at or now))
        ends = local + min(task.lease_s, max(0.0, until - now))
        if known is not None and known.began_at == began_at:
            began = known.began
        if known is not None and known.until == until:
            ends = known.ends
        self._granted[id(task)] = Granted(began_at, began, until, ends)

    def forget(self, task: Task) -> None:
        """The task runs no more."""
        self._granted.pop(id(task), None)

    def ran_s(self, task: Task) -> float:
        """For how many seconds the running attempt has surely run; 0 where none does."""
        granted = self._granted.get(id(task))
        if granted is None or granted.began_at is None:
            return 0.0
        return self._clock.monotonic() - granted.began

    def left_s(self, task: Task) -> float:
        """For how many seconds no other may take the lease over; 0 or less when it is over."""
        granted = self._granted.get(id(task))
        if granted is None:
            return 0.0
        return max(granted.ends - self._clock.monotonic(), granted.until - self._clock.stream_now())
