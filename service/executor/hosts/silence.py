"""Notices that a worker host process answers no ping: it is frozen, or a handler holds it."""

import asyncio
from collections.abc import Callable

from service.executor.limits import ExecutorLimits


class HostSilence:
    """Asks every ``ping_s`` on one loop; calls ``silent`` each time too many went unanswered.

    A process that was stopped as a whole and goes on finds the answers: periods are counted, not
    seconds, and a late loop counts one.
    """

    def __init__(
        self, limits: ExecutorLimits, ask: Callable[[], None], silent: Callable[[], None]
    ) -> None:
        self._limits = limits
        self._ask = ask
        self._silent = silent
        self._unanswered = 0
        self._next: asyncio.TimerHandle | None = None

    @property
    def lasts(self) -> bool:
        """Whether the host is silent now."""
        return self._unanswered >= self._limits.silent_pings

    def begin(self) -> None:
        """Ask from now on."""
        self._next = asyncio.get_running_loop().call_later(self._limits.ping_s, self._look)

    def heard(self) -> None:
        """The host has said something."""
        self._unanswered = 0

    def end(self) -> None:
        """Ask no more."""
        if self._next is not None:
            self._next.cancel()

    def _look(self) -> None:
        if self.lasts:
            self._silent()
        self._unanswered += 1
        self._ask()
        self.begin()
