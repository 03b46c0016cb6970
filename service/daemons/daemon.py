"""What a daemon is: a named step that is repeated, and how it is doing."""

from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any

import msgspec

from service.core.bridge import Bridge
from service.core.core import Core

FAILING_PERIODS = 3.0  # a daemon that fails for this many periods (and the grace) is in trouble
GRACE_S = 2.0


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """A named step and how often it is taken.

    One tick may last ``deadline_s`` at most and is called stuck after ``stuck_s``. What a
    ``probe`` finds wrong is reported by the check of what it probes, so its failure is no trouble
    of its own.
    """

    name: str
    period_s: float
    step: Callable[[Bridge], Awaitable[None]]
    deadline_s: float = 10.0
    stuck_s: float = 1.5
    probe: bool = False


def on_core(
    step: Callable[[Core], Coroutine[Any, Any, None]],
) -> Callable[[Bridge], Awaitable[None]]:
    """The step of a daemon that is taken on the core's loop."""

    async def through(bridge: Bridge) -> None:
        await bridge.call(step)

    return through


class DaemonState(msgspec.Struct, kw_only=True):
    """How a daemon is doing.

    ``last_success_at`` is wall clock since the epoch, ``due_at``, ``began_at`` (None between ticks)
    and ``fails_since`` are monotonic.
    """

    name: str
    period_s: float
    due_at: float
    last_success_at: float | None = None
    last_lateness_s: float = 0.0
    overruns: int = 0
    error: str | None = None
    began_at: float | None = None
    fails_since: float | None = None
    missed_deadline: bool = False
    holds: bool = False

    @property
    def lateness_s(self) -> float:
        """How late the last tick began, or by how much the next one is overdue if that is more."""
        overdue_s = 0.0 if self.began_at is not None else monotonic() - self.due_at
        return max(self.last_lateness_s, overdue_s)

    def trouble(self, daemon: Daemon) -> str | None:
        """Why it does not do its work now; None when it does."""
        now = monotonic()
        if self.began_at is not None and now - self.began_at > daemon.stuck_s:
            how = "holds its thread" if self.holds else "stuck in one tick"
            return f"{how} for {now - self.began_at:.1f} s"
        if self.missed_deadline:
            return self.error
        patience_s = self.period_s * FAILING_PERIODS + GRACE_S
        if self.fails_since is not None and now - self.fails_since > patience_s:
            return None if daemon.probe else self.error
        if self.began_at is None and now - self.due_at > self.period_s + GRACE_S:
            return f"its tick is {now - self.due_at:.1f} s overdue"
        return None
