"""What is declared of one metric, and the ways to declare it."""

import re
from math import prod
from typing import Literal

import msgspec

MetricKind = Literal["counter", "gauge", "histogram"]

RUNBOOK = "service/ops/RUNBOOK.md"


class Label(msgspec.Struct, frozen=True):
    """A label and the only values it takes; ``eager`` ones are shown at 0 before they happen.

    Only what comes from outside needs the value ``other``: code says what is declared here.
    """

    name: str
    values: tuple[str, ...]
    eager: bool = True


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One declared metric; ``help`` says what is counted, ``buckets`` are a histogram's bounds.

    ``alert`` is the rule in service/ops/rules.yaml that looks at it, if one does. A histogram's
    ``quantiles`` are shown for the last minute, by the label ``quantiles_by``, in one more gauge.
    """

    name: str
    kind: MetricKind
    help: str
    unit: str = ""
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    quantiles: tuple[str, ...] = ()
    quantiles_by: str | None = None
    alert: str | None = None

    @property
    def recent(self) -> "Metric | None":
        """The gauge of a histogram's quantiles, or None if none are shown."""
        if not self.quantiles:
            return None
        by = [label for label in self.labels if label.name == self.quantiles_by]
        return Metric(
            name=f"{self.name}.recent",
            kind="gauge",
            help=f"{self.help}: quantiles of the last minute",
            unit="seconds" if self.unit == "seconds" else "",
            labels=(Label("quantile", self.quantiles), *by),
        )

    @property
    def runbook(self) -> str | None:
        """Where to read what to do, as a path in the repository with an anchor."""
        return f"{RUNBOOK}#{self.alert.lower()}" if self.alert else None

    @property
    def series(self) -> int:
        """How many series it has once every combination of its labels' values has been seen."""
        each = len(self.buckets) + 3 if self.buckets else 1  # +Inf, sum and count
        return each * prod(len(label.values) for label in self.labels)

    @property
    def prometheus_name(self) -> str:
        """Dots become underscores; times end in ``_seconds`` and counters in ``_total``, once."""
        name = re.sub(r"_total$", "", self.name.replace(".", "_"))
        if self.unit and not name.endswith(f"_{self.unit}"):
            name = f"{name}_{self.unit}"
        return f"{name}_total" if self.kind == "counter" else name


def counter(name: str, help_: str, *labels: Label, alert: str | None = None) -> Metric:
    """What only grows."""
    return Metric(name=name, kind="counter", help=help_, labels=labels, alert=alert)


def gauge(
    name: str, help_: str, *labels: Label, unit: str = "", alert: str | None = None
) -> Metric:
    """What goes up and down."""
    return Metric(name=name, kind="gauge", help=help_, labels=labels, unit=unit, alert=alert)


def histogram(
    name: str,
    help_: str,
    buckets: tuple[float, ...],
    *labels: Label,
    shows: tuple[str, ...] = (),
    by: str | None = None,
    unit: str = "",
    alert: str | None = None,
) -> Metric:
    """How often values up to each of ``buckets`` were seen; see `Metric`."""
    return Metric(
        name=name,
        kind="histogram",
        help=help_,
        unit=unit,
        labels=labels,
        buckets=buckets,
        quantiles=shows,
        quantiles_by=by,
        alert=alert,
    )


def times(
    name: str,
    help_: str,
    buckets: tuple[float, ...],
    *labels: Label,
    shows: tuple[str, ...] = (),
    by: str | None = None,
    alert: str | None = None,
) -> Metric:
    """A histogram of seconds."""
    return histogram(name, help_, buckets, *labels, shows=shows, by=by, unit="seconds", alert=alert)
