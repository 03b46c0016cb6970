"""Whether the next claim waits a moment for the tasks of the last one to end."""

from time import monotonic

SMOOTHED_OVER = 16  # tasks


class Gathering:
    """How long tasks last, and for which of them a claim is held back; times are monotonic.

    Short tasks of one claim end together. A claim for the first slot alone would part them: from
    then on each claim brings what the other left over, and the log writes twice as many lists, each
    of half the size. Tasks that last longer end one by one, and nothing is won by waiting.
    """

    def __init__(self) -> None:
        self._lasts_s = 0.0
        self._until = 0.0
        self._others = 0

    def ended(self, lasted_s: float) -> None:
        """A task has held its thread for so long."""
        self._lasts_s += (lasted_s - self._lasts_s) / SMOOTHED_OVER

    def came(self, tasks: int, others: int, free: int, hold_s: float) -> None:
        """A claim brought ``tasks`` to ``others`` that were there before, and left ``free`` slots.

        If few are left, the next claim is held back for ``hold_s`` at most.
        """
        if tasks > free and self._lasts_s < hold_s:
            self._until = monotonic() + hold_s
            self._others = others

    def left_s(self, tasks: int) -> float:
        """How long the next claim is still held back while so many ``tasks`` have not ended."""
        return self._until - monotonic() if tasks > self._others else 0.0
