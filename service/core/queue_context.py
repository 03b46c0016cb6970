"""What the claim queue, and the part of it that takes leases, need of the core."""

from collections.abc import Coroutine
from typing import Any, Protocol

from projections.board.board import Board
from service.core.answers import OwnerAnswer, Refused
from service.signals.metrics.registry import Metrics
from streams import decider
from streams.log import Log, Origin
from streams.plan.commands import OwnerCommand


class QueueContext(decider.View, Protocol):
    """A view to decide on, and the log to append to."""

    board: Board
    log: Log
    metrics: Metrics

    def own(
        self, command: OwnerCommand, origin: Origin
    ) -> Coroutine[Any, Any, OwnerAnswer | Refused]:
        """Carry out an owner's command. Raises LogUnavailable."""
        ...
