"""Recognizes the log that the views were folded from, and one that only looks like it.

A stream that was restored from a backup has the epoch of the old one and grows past any checkpoint:
what follows the backup are other facts. So the checkpoint keeps a witness, the newest folded fact
that never expires, with its id and time; the log must have the same fact at the same sequence.
The log must also begin where facts of forgotten plans may be missing, or at sequence 1, and no plan
of the read models may have been submitted before it begins.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Literal

import msgspec

from streams.log import BadFact, Fact, Log, LogReset, LogState, LogUnavailable
from streams.plan.events import Heartbeat, Progress

PERIOD_S = 5.0
SAME_TIME_S = 0.001  # a time is read in two spellings, which differ by rounding

LogHistory = Literal["same", "other", "gone", "unknown"]
"""Whether a log has a witness: as it was, another fact there, none there, or not known."""


class Witness(msgspec.Struct, frozen=True, gc=False):
    """A fact that stays in its log until its plan is forgotten: where, its id, and its log time.

    The time is in seconds since the epoch.
    """

    sequence: int
    event_id: str
    at: float


def witness_in(facts: Sequence[Fact | BadFact]) -> Witness | None:
    """The last of ``facts`` that never expires."""
    for fact in reversed(facts):
        if isinstance(fact, Fact) and not isinstance(fact.event, Heartbeat | Progress):
            return Witness(fact.sequence, fact.event_id, fact.at)
    return None


async def history_of(source: Log, witness: Witness) -> LogHistory:
    """Whether ``source`` has what ``witness`` saw. Raises LogUnavailable."""
    found = await source.scan(witness.sequence - 1, 1)
    if not found:
        return "unknown"  # a replica that lags, or a log that has become shorter
    (fact,) = found
    if fact.sequence != witness.sequence:
        return "gone"
    same_id = isinstance(fact, Fact) and fact.event_id == witness.event_id
    return "same" if same_id and is_same_time(fact.at, witness.at) else "other"


def is_same_time(one: float, other: float) -> bool:
    """Whether two readings of one fact's log time mean the same moment."""
    return abs(one - other) < SAME_TIME_S


def replaced_at(witness: Witness) -> str:
    """What is wrong where `history_of` answers ``other``."""
    return (
        f"another fact stands at sequence {witness.sequence} than the one that was folded: "
        "the log was replaced, perhaps by a backup that has grown since"
    )


def begins_late(state: LogState) -> str | None:
    """What is wrong with where a log begins; None: nothing.

    All of forgotten plans may be missing up to `LogState.forgotten`. What stands next never
    expires: it is the ``submitted`` of a plan, or a fact that forgets one.
    """
    if state.first <= state.forgotten + 1:
        return None
    up_to = f"only up to {state.forgotten}" if state.forgotten else "nowhere"
    return f"the log begins at sequence {state.first}, and facts may be missing {up_to}"


class LogWatch:
    """Looks at the log from time to time; a log that lost facts is reported, another one is fatal.

    ``witness`` gives the newest one that is in the views. ``oldest_plan`` answers the first
    sequence of the oldest plan in the views, once they have reached a sequence; None before that,
    and when there is no plan. ``on_missing`` is called with the reason at each look that finds
    facts missing; ``on_other`` once, before `run` raises.
    """

    def __init__(
        self,
        source: Log,
        witness: Callable[[], Witness | None],
        oldest_plan: Callable[[int], Awaitable[int | None]],
        *,
        on_missing: Callable[[str], None],
        on_other: Callable[[str], None],
    ) -> None:
        self._source = source
        self._witness = witness
        self._oldest_plan = oldest_plan
        self._seen: LogState | None = None  # at the last look
        self._on_missing = on_missing
        self._on_other = on_other

    async def run(self) -> None:
        """Look for ever. Raises LogReset for another log."""
        while True:
            with suppress(LogUnavailable):  # the log probe reports it
                await self.look()
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> None:
        """Look once. Raises LogReset, LogUnavailable."""
        witness = self._witness()
        history = "same" if witness is None else await history_of(self._source, witness)
        if history == "other" and witness is not None:
            why = replaced_at(witness)
            self._on_other(why)
            raise LogReset(why)
        state = await self._source.state()
        seen, self._seen = self._seen, state
        if seen is not None and (late := await self._lost_beginning(seen, state)) is not None:
            self._on_missing(late)
        elif history == "gone" and witness is not None and witness.sequence > state.forgotten:
            self._on_missing(f"the fact at sequence {witness.sequence} is gone from the log")

    async def _lost_beginning(self, seen: LogState, state: LogState) -> str | None:
        """What is wrong with where the log begins, at two looks; None: nothing."""
        # A leader that has just been chosen may not have heard of the newest note yet.
        if begins_late(seen) is not None and (late := begins_late(state)) is not None:
            return late
        # The views have everything that stood in the log when it was seen to begin there, also the
        # facts that forget plans. So what they have before it was lost.
        oldest = await self._oldest_plan(seen.head)
        if oldest is None or oldest >= seen.first:
            return None
        return (
            f"the log begins at sequence {seen.first}, and the plan that was submitted at "
            f"{oldest} was not forgotten"
        )
