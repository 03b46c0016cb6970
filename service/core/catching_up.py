"""Brings a new process up to the end of its log, and says how far it is and how long it will take.

Until then nothing is served: what an instance knows has to be at least as new as the log was when
it started.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog

from service.core.core import Core
from service.runtime.tuning import uncollected
from streams.log import LogUnavailable

SHOW_S = 1.0

log = structlog.get_logger("holdfast.core")


class HowFar(msgspec.Struct, frozen=True, kw_only=True):
    """How far the fold is on its way from ``start`` to ``head``, after ``took_s`` seconds."""

    start: int
    sequence: int
    head: int
    took_s: float

    @property
    def events_per_s(self) -> float:
        """How many events it has folded in a second, on average."""
        return (self.sequence - self.start) / max(self.took_s, 0.001)

    @property
    def percent(self) -> float:
        """The share that is folded."""
        return 100 * (self.sequence - self.start) / max(self.head - self.start, 1)

    @property
    def left_s(self) -> float | None:
        """How many seconds the rest will take at this pace; None: nothing is folded yet."""
        pace = self.events_per_s
        return (self.head - self.sequence) / pace if pace else None

    def __str__(self) -> str:
        """The same as a sentence."""
        told = (
            f"{self.sequence:,} of {self.head:,} events are read, {self.events_per_s:,.0f} a second"
        )
        return told if self.left_s is None else f"{told}, about {self.left_s:.0f} s are left"


async def caught_up(
    core: Core,
    head: int,
    died: asyncio.Future[str],
    tell: Callable[[HowFar], None],
    *,
    show_s: float = SHOW_S,
) -> None:
    """Wait until the board has folded everything up to ``head`` and placed it.

    Every ``show_s`` seconds it logs, and calls ``tell`` with, how far it is. Raises LogUnavailable
    when a vital loop has ended.
    """
    began, start = time.monotonic(), core.board.sequence
    is_shown = False
    with uncollected():
        while core.board.sequence < head:
            if died.done():
                raise LogUnavailable(died.result())
            try:
                async with asyncio.timeout(show_s):
                    await core.projector.folded(head)
            except TimeoutError:
                is_shown = True
                took_s = time.monotonic() - began
                so_far = HowFar(start=start, sequence=core.board.sequence, head=head, took_s=took_s)
                _show(so_far)
                tell(so_far)
                if not await core.log.scan(core.board.sequence, 1):
                    break  # the last messages of the log were short-lived and have expired
        await core.projector.arrive()
    if is_shown:
        took_s = round(time.monotonic() - began, 1)
        log.info("caught_up", events=core.board.sequence - start, took_s=took_s)


def _show(how_far: HowFar) -> None:
    left_s = how_far.left_s
    log.info(
        "catching_up",
        sequence=how_far.sequence,
        head=how_far.head,
        percent=round(how_far.percent, 1),
        events_per_s=round(how_far.events_per_s),
        left_s=None if left_s is None else round(left_s),
    )
