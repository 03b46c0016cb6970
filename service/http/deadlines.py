"""Each request is answered within one bound, whatever it waits for; when that is over, with a 503.

The bound counts from the arrival of the whole request to the beginning of its answer. The read of
the plan, the append and the wait for the fold share it: what is under way at its end is cancelled.
A write that is cancelled may be stored all the same, and the same request may safely be repeated.
A lease that is granted too late is given back (`service.core.lease_taking`).
"""

import asyncio
from types import TracebackType
from typing import Any

import msgspec
from litestar.types import Receive

from service.http.problems import RequestRefused

READING = ("GET", "HEAD")


class CallLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Within how many seconds a request is answered.

    ``read_s`` holds for GET and contains the 5 s for which ``min_sequence`` is waited for.
    ``write_s`` holds for all others: longer than an election and the append's budget.
    ``long_read_s`` holds for what folds a plan anew or diagnoses the instance.
    """

    read_s: float = 8.0
    write_s: float = 15.0
    long_read_s: float = 15.0


CALL_LIMITS = CallLimits()


class Deadline:
    """The bound of one request; made when its head has arrived, in the task that answers it.

    ``body_s`` is what its body may take to arrive (`service.http.bounded_protocol` ends it then).
    """

    __slots__ = ("_began_at", "_counts", "_limits", "_loop", "_reads", "_timeout", "limit_s")

    def __init__(self, method: str, limits: CallLimits, body_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()
        self._counts = False
        self._limits = limits
        self._reads = method in READING
        self.limit_s = limits.read_s if self._reads else limits.write_s
        wait_s = self.limit_s if self._reads else self.limit_s + body_s
        self._timeout = asyncio.timeout_at(self._began_at + wait_s)

    async def __aenter__(self) -> None:
        """From here on it counts; at its end TimeoutError is raised, and `expired` is true."""
        await self._timeout.__aenter__()
        self._counts = True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """See `__aenter__`."""
        self._counts = False
        await self._timeout.__aexit__(kind, error, trace)

    @property
    def expired(self) -> bool:
        """Whether the request was not answered in time."""
        return self._timeout.expired()

    def receiving(self, receive: Receive) -> Receive:
        """``receive``, where the time that the body takes to arrive does not count."""
        if self._reads:
            return receive
        arrived = False

        async def received() -> Any:  # noqa: ANN401 - a message
            nonlocal arrived
            if arrived:  # what comes now is the client's end
                return await receive()
            asked_at = self._loop.time()
            message = await receive()
            self._began_at += self._loop.time() - asked_at
            if not message.get("more_body", False):
                arrived = True
                self._move()
            return message

        return received

    def allow(self, more_s: float) -> None:
        """Move the end by ``more_s``: so much longer the client has asked to wait."""
        self.limit_s += more_s
        self._move()

    def allow_long_read(self) -> None:
        """The answer takes more work than that of other reads."""
        self.allow(self._limits.long_read_s - self.limit_s)

    def answered(self) -> None:
        """The answer begins: it may take as long as its client needs."""
        self._move_to(None)
        self._counts = False

    @property
    def refusal(self) -> RequestRefused:
        """What a request is answered whose time is over."""
        return RequestRefused(
            "log_unavailable",
            f"there was no certain answer within {self.limit_s:g} s; "
            "the same request may safely be repeated",
        )

    def _move(self) -> None:
        self._move_to(self._began_at + self.limit_s)

    def _move_to(self, when: float | None) -> None:
        if self._counts and not self._timeout.expired():
            self._timeout.reschedule(when)
