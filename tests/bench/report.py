"""What a measurement says: one JSON line for machines, one row of a table for people."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One measured number, its aim (None: reported only), and what else was seen.

    ``at_least`` and ``at_most`` are aims; a result may have one of them. With ``bound`` it is a
    bound that holds on any machine, as it compares two figures of one run: a run that breaks it has
    failed. ``limit`` says what keeps the number from being better, as found by profiling.
    """

    measure: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    bound: bool = False
    seen: dict[str, Any] = {}
    limit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim was met; None without one."""
        if self.at_least is not None:
            return self.value >= self.at_least
        if self.at_most is not None:
            return self.value <= self.at_most
        return None

    @property
    def broken(self) -> bool:
        """Whether this is a bound, and does not hold."""
        return self.bound and self.met is False


def say(result: Result) -> Result:
    """Print the JSON line at once, so that a run that is cut off has said what it knew."""
    line = msgspec.to_builtins(result) | {"met": result.met}
    print(json.dumps(line), flush=True)
    return result


def progress(text: str) -> None:
    """Say on stderr what is being measured, so that a long run shows that it goes on."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def table(results: list[Result]) -> None:
    """Print everything again, to be read."""
    print(file=sys.stderr)
    for result in results:
        aim, word = "", "bound" if result.bound else "aim"
        if result.at_least is not None:
            aim = f"{word} ≥ {result.at_least:g}"
        elif result.at_most is not None:
            aim = f"{word} ≤ {result.at_most:g}"
        mark = {True: "met", False: "MISSED", None: ""}[result.met]
        seen = " ".join(f"{name}={_short(value)}" for name, value in result.seen.items())
        print(
            f"{result.measure:<46} {_short(result.value):>10} {result.unit:<10} {aim:<14} "
            f"{mark:<7} {seen}",
            file=sys.stderr,
        )
        if result.limit:
            print(f"    limited by {result.limit}", file=sys.stderr)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of ``values`` lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def spread(values: list[float]) -> dict[str, float]:
    """The worst and the best of the rounds of one measurement, whose middle is its value."""
    return {"lowest": min(values), "highest": max(values)}
