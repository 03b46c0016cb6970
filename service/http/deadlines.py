"""Each request is answered within one bound, whatever it waits for; when that is over, with a 503.

The bound counts from the arrival of the whole request to the beginning of its answer. The read of
the plan, the append and the wait for the fold share it: what is under way at its end is cancelled.
A write that is cancelled may be stored all the same, and the same request may safely be repeated.
A lease that is granted too late is given back (`service.core.lease_taking`).
"""

import asyncio
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
    ``look_s`` is how often open requests are looked through.
    """

    read_s: float = 8.0
    write_s: float = 15.0
    long_read_s: float = 15.0
    look_s: float = 0.25


CALL_LIMITS = CallLimits()


class Deadlines:
    """The open requests of an application, looked through by one timer: one for each costs more.

    ``body_s`` is what a body may take to arrive (`service.http.bounded_protocol` ends it then).
    """

    def __init__(self, limits: CallLimits, body_s: float) -> None:
        self.limits = limits
        self.body_s = body_s
        self.open: set[Deadline] = set()  # those whose answer has not begun
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, method: str) -> "Deadline":
        """The bound of a request whose head has arrived; called in the task that answers it."""
        loop = asyncio.get_running_loop()
        deadline = Deadline(self, method, loop)
        self.open.add(deadline)
        if self._timer is None:
            self._timer = loop.call_later(self.limits.look_s, self._look, loop)
        return deadline

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for deadline in [each for each in self.open if each.at <= now]:
            self.open.discard(deadline)
            deadline.expire()
        self._timer = loop.call_later(self.limits.look_s, self._look, loop) if self.open else None


class Deadline:
    """The bound of one request, ``at`` a time of the loop."""

    __slots__ = ("_all", "_arrived", "_loop", "_receive", "_task", "at", "limit_s", "refusal")

    def __init__(self, among: Deadlines, method: str, loop: asyncio.AbstractEventLoop) -> None:
        self._all = among
        self._loop = loop
        self._task = asyncio.current_task(loop)
        self._arrived = method in READING
        self._receive: Receive | None = None
        self.refusal: RequestRefused | None = None  # what it is answered with, once it was ended
        self.limit_s = among.limits.read_s if self._arrived else among.limits.write_s
        self.at = loop.time() + self.limit_s + (0.0 if self._arrived else among.body_s)

    def receiving(self, receive: Receive) -> Receive:
        """``receive``, where the time that the body takes to arrive does not count."""
        if self._arrived:
            return receive
        self._receive = receive
        return self._received

    async def _received(self) -> Any:  # noqa: ANN401 - a message
        assert self._receive is not None  # noqa: S101 - narrows the type
        if self._arrived:  # what comes now is the client's end
            return await self._receive()
        asked_at = self._loop.time()
        message = await self._receive()
        self.at += self._loop.time() - asked_at
        if not message.get("more_body", False):
            self._arrived = True
            self.at -= self._all.body_s
        return message

    def allow(self, more_s: float) -> None:
        """Move the end by ``more_s``: so much longer the client has asked to wait."""
        self.limit_s += more_s
        self.at += more_s

    def allow_long_read(self) -> None:
        """The answer takes more work than that of other reads."""
        self.allow(self._all.limits.long_read_s - self.limit_s)

    def answered(self) -> None:
        """The answer begins: it may take as long as its client needs."""
        self._all.open.discard(self)

    def over(self) -> None:
        """The request has ended; with nothing that leads back to it, it is freed at once."""
        self._all.open.discard(self)
        self._receive = self._task = None

    def expire(self) -> None:
        """End the request: its time is over."""
        self.end(
            RequestRefused(
                "log_unavailable",
                f"there was no certain answer within {self.limit_s:g} s; "
                "the same request may safely be repeated",
            )
        )

    def end(self, refusal: RequestRefused) -> None:
        """Cancel the request, which is answered with ``refusal``; the first one counts."""
        if self._task is not None and self.refusal is None:
            self.refusal = refusal
            self._task.cancel()

    def took_back(self) -> RequestRefused | None:
        """Take the cancellation of `end` back; None if something else cancelled the task, too."""
        if self._task is None or self.refusal is None or self._task.uncancel():
            return None
        return self.refusal
