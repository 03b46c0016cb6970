"""The verbs in which the feed reports; `service.signals.metrics.registry` implements them."""

from typing import Protocol


class Meter(Protocol):
    """Counters, histograms and gauges by their dotted names."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        ...

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add one value to a histogram."""
        ...

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        ...
