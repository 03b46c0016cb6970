"""What the fault tests found, in figures: kept as JSON at once, printed as a table at the end.

    def test_...(report: Report) -> None:
        report.add("pools", "blocking handlers, 8 threads", lateness_p99_s=0.004, leases_lost=0)

`question` is one of the three that every release answers ("load", "jitter", "pools") or the name
of another room ("health"); `case` says what was done. Figures are numbers, texts or lists of them,
and carry their unit in their name.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

FOLDER = Path(__file__).parents[2] / "fault-results"


class Record(msgspec.Struct, frozen=True):
    """One case of one question, and what was measured."""

    question: str
    case: str
    figures: dict[str, Any]


class Report:
    """The records of one test run, written to a file of its own as they come."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.records: list[Record] = []
        began = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
        self.path = folder / f"{began}-{os.getpid()}.json"

    def add(self, question: str, case: str, **figures: object) -> None:
        """Keep what was measured; a run that is cut off has written what it knew."""
        self.records.append(Record(question, case, figures))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps([msgspec.to_builtins(record) for record in self.records], indent=1)
        self.path.write_text(content + "\n", encoding="utf-8")

    def lines(self) -> Iterator[str]:
        """The table, by question, in the order in which the cases were added."""
        width = max((len(record.case) for record in self.records), default=0)
        for question in dict.fromkeys(record.question for record in self.records):
            yield f"{question}:"
            for record in self.records:
                if record.question == question:
                    yield f"  {record.case:<{width}}  {_shown(record.figures)}"


def _shown(figures: dict[str, Any]) -> str:
    return "  ".join(f"{name}={_short(value)}" for name, value in figures.items())


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ",".join(map(_short, value)) or "none"
    return str(value)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of `values` lie (0.99 of few values: the largest)."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
