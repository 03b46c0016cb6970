"""Tells listeners of the facts that are folded; one that fails is counted, never fatal.

Metrics, the audit trail, event streams and waiting claims follow the fold. They are called after
a fact is folded and cannot change it, so a fault in one of them must stop neither the fold nor the
others: it is logged with the sequence, and `OnListenerFailure` counts it.

Several instances follow one log, and a log is read again after a restart; still each fact is
counted and audited once, by the process that wrote it. The configured ``executor.instance_id``
does not decide this, because a restarted pod, or a second one by mistake, has the same. Facts
without an author (unreadable, or ignored and published by hand) go to the listeners of every
instance.
"""

from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import NamedTuple

import msgspec
import structlog

from streams.log import BadFact, Fact
from streams.plan.events import TYPE_NAMES, Event
from streams.subjects import subject_of

LOG_EVERY_S = 5.0  # a listener that fails for every fact must not fill the log

log = structlog.get_logger("holdfast.projector")

FoldedFact = Fact | BadFact


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Facts that were folded one after the other, and the position of the fold after them.

    ``counted`` are those of them that were not ignored.
    """

    facts: Sequence[FoldedFact]
    counted: Sequence[Fact]
    position: int


OnListenerFailure = Callable[[str], None]
"""Is called with the name of a listener that has failed."""

OnFact = Callable[[Fact], object]
"""Hears a fact that counts once it is folded, on the loop of the fold; must be quick."""

OnBadFact = Callable[[BadFact], object]
"""Hears a fact without an author that cannot be read, or was ignored for its ``reason``."""

OnBatch = Callable[[Batch], object]
"""Hears each batch once all of it is folded."""


class _Hearer(NamedTuple):
    on_fact: OnFact
    events: Collection[type[Event]]
    is_for_own: bool


Hearing = dict[type[Event], tuple[tuple[str, OnFact], ...]]
"""Who hears which event, by name."""


class Listeners:
    """Who listens to one fold, by name. ``on_failure`` is called for each failure.

    ``wrote`` says of an event id whether this process wrote the fact.
    """

    def __init__(
        self,
        on_failure: OnListenerFailure | None = None,
        wrote: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._on_failure = on_failure
        self._wrote = wrote
        self._on_facts: dict[str, _Hearer] = {}
        self._hearing_own: Hearing = {}
        self._hearing_others: Hearing = {}
        self._on_bad_facts: dict[str, OnBadFact] = {}
        self._on_batches: dict[str, OnBatch] = {}
        self._counted: list[Fact] = []
        self._logged_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def add(
        self,
        name: str,
        on_fact: OnFact,
        events: Collection[type[Event]] = tuple(TYPE_NAMES),
        *,
        only_own: bool = False,
    ) -> None:
        """Call ``on_fact`` for each fact of ``events`` that counts, from now on.

        ``only_own``: if this process wrote it. One of the same name is replaced.
        """
        self._on_facts[name] = _Hearer(on_fact, events, only_own)
        self._sort()

    def add_for_bad_facts(self, name: str, on_bad_fact: OnBadFact) -> None:
        """Call ``on_bad_fact`` for each from now on; one of the same name is replaced."""
        self._on_bad_facts[name] = on_bad_fact

    def add_for_batches(self, name: str, on_batch: OnBatch) -> None:
        """Call ``on_batch`` for each batch from now on; one of the same name is replaced."""
        self._on_batches[name] = on_batch

    def remove(self, name: str) -> None:
        """Stop calling the listener of this name; it may remove itself while it is called."""
        self._on_facts.pop(name, None)
        self._on_bad_facts.pop(name, None)
        self._on_batches.pop(name, None)
        self._sort()

    def fact(self, fact: FoldedFact, ignored: str | None) -> None:
        """Tell of one fact, and why the fold ignored it; None: it counts. Never raises."""
        if isinstance(fact, Fact) and ignored is None:
            self._counted.append(fact)
            hearing = self._hearing_own if self._wrote(fact.event_id) else self._hearing_others
            for name, on_fact in hearing.get(type(fact.event), ()):
                try:
                    on_fact(fact)
                except Exception as error:  # noqa: BLE001 - see the module
                    self._failed(name, fact.sequence, error)
        elif (bad := _without_author(fact, ignored)) is not None:
            for name, on_bad_fact in tuple(self._on_bad_facts.items()):
                try:
                    on_bad_fact(bad)
                except Exception as error:  # noqa: BLE001 - see the module
                    self._failed(name, fact.sequence, error)

    def batch(self, facts: Sequence[FoldedFact], position: int) -> None:
        """Tell of ``facts``, of each of which `fact` has told, as one batch. Never raises."""
        batch, self._counted = Batch(facts, self._counted, position), []
        for name, on_batch in tuple(self._on_batches.items()):
            try:
                on_batch(batch)
            except Exception as error:  # noqa: BLE001 - see the module
                self._failed(name, position, error)

    def _sort(self) -> None:
        self._hearing_own = self._sorted(own=True)
        self._hearing_others = self._sorted(own=False)

    def _sorted(self, *, own: bool) -> Hearing:
        return {
            event: tuple(
                (name, hearer.on_fact)
                for name, hearer in self._on_facts.items()
                if event in hearer.events and (own or not hearer.is_for_own)
            )
            for event in TYPE_NAMES
        }

    def _failed(self, name: str, sequence: int, error: Exception) -> None:
        self._unlogged[name] = self._unlogged.get(name, 0) + 1
        now = monotonic()
        if now - self._logged_at.get(name, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged_at[name] = now
            failures = self._unlogged.pop(name)
            log.error(
                "listener_failed",
                listener=name,
                sequence=sequence,
                failures=failures,
                error=repr(error),
                exc_info=error,
            )
        if self._on_failure is not None:
            self._on_failure(name)


def _without_author(fact: FoldedFact, ignored: str | None) -> BadFact | None:
    """What listeners hear of a fact that does not count.

    Facts of instances are ignored where they lost a race, which is no trouble.
    """
    if isinstance(fact, BadFact):
        return fact
    if fact.origin.instance:
        return None
    return BadFact(fact.sequence, fact.at, subject_of(fact.plan_id, fact.task_id), ignored or "")
