"""Draws a task's life cycle, as a Mermaid state diagram, from the table that the fold obeys.

ARCHITECTURE.md holds the drawing between BEGIN and END.
"""

from collections.abc import Iterable
from itertools import groupby

from streams.plan.lifecycle import ENDED, TRANSITIONS, Transition

BEGIN = "<!-- lifecycle:begin -->"
END = "<!-- lifecycle:end -->"


def diagram(transitions: Iterable[Transition] = TRANSITIONS) -> str:
    """The drawing's source: one arrow per pair of statuses, derived changes in parentheses."""
    rows = sorted(transitions, key=_arrow)
    arrows = [_line(source, target, rows) for (source, target), rows in groupby(rows, key=_arrow)]
    ends = [f"    {status} --> [*]" for status in sorted(ENDED)]
    return "\n".join(["stateDiagram-v2", "    [*] --> PENDING: submitted", *arrows, *ends])


def block(transitions: Iterable[Transition] = TRANSITIONS) -> str:
    """The drawing as it stands in ARCHITECTURE.md, markers included."""
    return f"{BEGIN}\n```mermaid\n{diagram(transitions)}\n```\n{END}"


def redrawn(page: str) -> str:
    """``page`` with the drawing of today's table."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{block()}{rest.partition(END)[2]}"


def _arrow(row: Transition) -> tuple[str, str]:
    return row.source, row.target


def _line(source: str, target: str, rows: Iterable[Transition]) -> str:
    triggers = [f"({row.trigger})" if row.derived else row.trigger for row in rows]
    return f"    {source} --> {target}: {' / '.join(triggers)}"
