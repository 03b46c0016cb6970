"""Detects another process that works under the same ``executor.instance_id``.

Facts carry the instance's id, and their event ids tell which process appended them. A fact of our
id that we did not append, written after our start, comes from a second holder: a copied
configuration, or an old pod that still runs. Both then look like one instance in owners of leases,
in audit entries and in the sharing of the queue.
"""

from collections.abc import Callable

import structlog

from projections.listeners import Batch
from streams.log import BadFact, Fact, Log

GRACE_S = 15.0  # what an earlier process of this id sent before it ended has arrived by then
AGAIN_S = 300.0  # at most one log line and audit entry in this time

log = structlog.get_logger("holdfast.instance")


class SecondHolder:
    """Listens to the fold. ``tell`` is called with what was seen, at most every AGAIN_S."""

    def __init__(
        self, instance_id: str, source: Log, started_at: float, tell: Callable[[str, int], None]
    ) -> None:
        """``started_at`` is log time in seconds; ``tell`` gets a text and the fact's sequence."""
        self._instance_id = instance_id
        self._source = source
        self._started_at = started_at
        self._tell = tell
        self._told_at = 0.0
        self.seen_at: float | None = None
        """When the last fact of a second holder was written, in log time."""

    def folded(self, batch: Batch) -> None:
        """Look for facts of this id that this process did not write."""
        since = self._started_at + GRACE_S
        for fact in batch.facts:
            if isinstance(fact, BadFact) or fact.origin.instance != self._instance_id:
                continue
            if fact.at >= since and not self._source.wrote(fact.event_id):
                self._saw(fact)

    def _saw(self, fact: Fact) -> None:
        self.seen_at = fact.at
        if fact.at - self._told_at >= AGAIN_S:
            self._told_at = fact.at
            why = f"another process writes as instance '{self._instance_id}'"
            log.error("instance_id_shared", instance_id=self._instance_id, sequence=fact.sequence)
            self._tell(f"{why} (sequence {fact.sequence})", fact.sequence)
