"""Recognizes the log that the views were folded from, and one that only looks like it.

A stream that was restored from a backup has the epoch of the old one and grows past any checkpoint:
what follows the backup are other facts. So the checkpoint keeps a witness, the newest folded fact
that never expires, with its id and time; the log must have the same fact at the same sequence.
The log must also begin at sequence 1: forgetting plans leaves its first message in place.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

import msgspec

from streams.log import BadFact, Fact, Log, LogReset, LogUnavailable
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


def begins_late(first: int) -> str | None:
    """What is wrong with a log whose first message stands at sequence ``first``; None: nothing."""
    if first <= 1:
        return None
    return f"the log begins at sequence {first}, and nothing removes its first message"


class LogWatch:
    """Looks at the log from time to time; a log that lost facts is reported, another one is fatal.

    ``witness`` gives the newest one that is in the views. ``on_missing`` is called with the
    reason at each look that finds facts missing; ``on_other`` once, before `run` raises.
    """

    def __init__(
        self,
        source: Log,
        witness: Callable[[], Witness | None],
        *,
        on_missing: Callable[[str], None],
        on_other: Callable[[str], None],
    ) -> None:
        self._source = source
        self._witness = witness
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
        if (late := begins_late(state.first)) is not None:
            self._on_missing(late)
        elif history == "gone" and witness is not None and witness.sequence > state.forgotten:
            self._on_missing(f"the fact at sequence {witness.sequence} is gone from the log")
