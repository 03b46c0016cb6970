"""Passes folded facts to metrics and audit: those that this process has written.

Several instances follow one log, and a log is read again after a restart; still each fact is
counted and audited once, by the process that wrote it. The configured ``executor.instance_id``
does not decide this, because a restarted pod, or a second one by mistake, has the same. Facts
without an author (unreadable, or ignored and published by hand) are audited by every instance, if
they are new.
"""

from typing import Protocol

from projections.listeners import FoldedFact
from streams.log import BadFact, Fact, Log
from streams.subjects import subject_of


class FactSignals(Protocol):
    """What metrics and audit make of folded facts."""

    def written_here(self, fact: Fact) -> None:
        """A fact that this process wrote has changed its plan."""
        ...

    def bad(self, fact: BadFact) -> None:
        """A fact without an author cannot be read, or was ignored for ``fact.reason``."""
        ...


class OwnFacts:
    """Passes folded facts on to ``signals``.

    Bad facts up to ``news_after`` (where the read models, or for new ones the log, were at the
    start) were audited by an earlier process.
    """

    def __init__(self, signals: FactSignals, log: Log, *, news_after: int) -> None:
        self._signals = signals
        self._log = log
        self._news_after = news_after

    def folded(self, fact: FoldedFact, ignored: str | None) -> None:
        """See `projections.listeners.FactListener`."""
        if isinstance(fact, BadFact):
            self._bad(fact)
        elif ignored is not None:
            # Facts of instances are ignored where they lost a race, which is no trouble.
            if not fact.origin.instance:
                subject = subject_of(fact.plan_id, fact.task_id)
                self._bad(BadFact(fact.sequence, fact.at, subject, ignored))
        elif self._log.wrote(fact.event_id):
            self._signals.written_here(fact)

    def _bad(self, fact: BadFact) -> None:
        if fact.sequence > self._news_after:
            self._signals.bad(fact)
