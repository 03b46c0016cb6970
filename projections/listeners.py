"""Calls listeners for every fact that is folded; one that fails is counted, never fatal.

Metrics, the audit trail, event streams and waiting claims follow the fold. They are called after
a fact is folded and cannot change it, so a fault in one of them must stop neither the fold nor the
others: it is logged with the sequence, and `OnListenerFailure` counts it.
"""

from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import Protocol

import structlog

from streams.log import BadFact, Fact
from streams.plan.events import Event

LOG_EVERY_S = 5.0  # a listener that fails for every fact must not fill the log

log = structlog.get_logger("holdfast.projector")

FoldedFact = Fact | BadFact
OnListenerFailure = Callable[[str], None]
"""Is called with the name of a listener that has failed."""


class FactListener(Protocol):
    """Hears each fact once it is folded, on the loop of the fold; must be quick."""

    def folded(self, fact: FoldedFact, ignored: str | None) -> None:
        """``ignored`` is why the fold ignored the fact; None when it counts."""
        ...


Hearing = tuple[tuple[str, FactListener], ...]

OnBatch = Callable[[Sequence[FoldedFact], int], object]
"""Hears each batch of facts and the position of the fold after it."""


class Listeners:
    """Who listens to one fold, by name. ``on_failure`` is called for each failure."""

    def __init__(self, on_failure: OnListenerFailure | None = None) -> None:
        self._on_failure = on_failure
        self._on_facts: dict[str, tuple[FactListener, Collection[type[Event]]]] = {}
        self._hearing: Hearing = ()  # the same, to walk over
        self._counted: dict[type[Event], Hearing] = {}  # the same for events that not all hear
        self._on_batches: dict[str, OnBatch] = {}
        self._logged_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def add(
        self, name: str, listener: FactListener, *, unheard: Collection[type[Event]] = ()
    ) -> None:
        """Tell ``listener`` of each fact from now on; one of the same name is replaced.

        Of ``unheard`` events, for which it has nothing to do, it hears only those that the fold
        ignored.
        """
        self._on_facts[name] = listener, unheard
        self._sort()

    def add_for_batches(self, name: str, on_batch: OnBatch) -> None:
        """Call ``on_batch`` for each batch from now on; one of the same name is replaced."""
        self._on_batches[name] = on_batch

    def remove(self, name: str) -> None:
        """Stop calling the listener of this name; it may remove itself while it is called."""
        self._on_facts.pop(name, None)
        self._on_batches.pop(name, None)
        self._sort()

    def fact(self, fact: FoldedFact, ignored: str | None) -> None:
        """Tell of one fact. Never raises."""
        hearing = self._hearing
        if ignored is None and isinstance(fact, Fact):
            hearing = self._counted.get(type(fact.event), hearing)
        for name, listener in hearing:
            try:
                listener.folded(fact, ignored)
            except Exception as error:  # noqa: BLE001 - see the module
                self._failed(name, fact.sequence, error)

    def batch(self, facts: Sequence[FoldedFact], position: int) -> None:
        """Tell of one batch. Never raises."""
        for name, on_batch in tuple(self._on_batches.items()):
            try:
                on_batch(facts, position)
            except Exception as error:  # noqa: BLE001 - see the module
                self._failed(name, position, error)

    def _sort(self) -> None:
        listeners = self._on_facts.items()
        self._hearing = tuple((name, listener) for name, (listener, _) in listeners)
        kinds = {kind for _, (_, unheard) in listeners for kind in unheard}
        self._counted = {
            kind: tuple((name, each) for name, (each, unheard) in listeners if kind not in unheard)
            for kind in kinds
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
