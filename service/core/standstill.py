"""Whether claims stand still: after one that the log leaves unanswered for long no other is sent.

A log without quorum leaves claims unanswered for seconds, and meanwhile each task's turn passes
from instance to instance by the clock. Every instance would claim what others have claimed already,
and lose the race when the log goes on.

A busy machine is no silent log: silence is counted in turns of the loop, each of which reads what
has arrived, and the answer to any claim ends it.
"""

import asyncio
from time import monotonic
from types import TracebackType

from msgspec import Struct

from streams.log import LogUnavailable

TURN_S = 0.05  # what one turn of the loop counts, however long it took
SETTLE_S = 0.1  # after the answer, until the claims of other instances have been folded


class SilenceLimits(Struct, frozen=True, kw_only=True):
    """How long the log may leave claims unanswered, in seconds.

    After ``held_back_s`` no other claim is sent: half of an instance's turn at a task. After
    ``refused_s`` a request for work is answered with an error instead of with nothing; an instance
    whose writes take so long is not ready either (`service.ops.health`).
    """

    held_back_s: float = 0.5
    refused_s: float = 2.0


SILENCE_LIMITS = SilenceLimits()


class Standstill:
    """The claims that are on the way to the log: each during a block; lives on the API loop."""

    def __init__(self, silence: SilenceLimits = SILENCE_LIMITS) -> None:
        self._silence = silence
        self._on_the_way = 0
        self._turning = False
        self._until = 0.0  # by the monotonic clock; 0: claims have not stood still
        self.silent_s = 0.0  # for how long no claim was answered while any was on the way

    def __enter__(self) -> None:
        """A claim is on the way, from here to the end of the block."""
        self._on_the_way += 1
        if not self._turning:
            self._count_turns()

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        self._on_the_way -= 1
        if self.silent_s and (not isinstance(error, LogUnavailable) or not self._on_the_way):
            self._end_silence()

    @property
    def left_s(self) -> float:
        """For how many seconds no claim is to be sent, as far as is known; 0 if one may be."""
        if self.silent_s > self._silence.held_back_s:
            return SETTLE_S
        return max(self._until - monotonic(), 0.0) if self._until else 0.0

    def complain(self) -> None:
        """Raise LogUnavailable if the log has been silent for longer than a request may hide."""
        if self.silent_s > self._silence.refused_s:
            raise LogUnavailable(f"the log has not answered a claim for {self.silent_s:.1f} s")

    def _end_silence(self) -> None:
        if self.silent_s > self._silence.held_back_s:
            self._until = monotonic() + SETTLE_S
        self.silent_s = 0.0

    def _count_turns(self) -> None:
        self._turning = True
        asyncio.get_running_loop().call_later(TURN_S, self._turn)

    def _turn(self) -> None:
        self._turning = False
        if self._on_the_way:
            self.silent_s += TURN_S
            self._count_turns()
