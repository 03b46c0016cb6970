"""Tables that fit the terminal; in a pipe plain text without colours, one row per line."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.runtime.terminal import escaped_json, on_one_line

STYLES = {
    "RUNNING": "blue", "READY": "magenta", "REFINING": "magenta", "COMPLETED": "green",
    "FAILED": "bold red", "PAUSED": "yellow", "SKIPPED": "yellow", "CANCELLED": "dim",
}  # fmt: skip
PIPE_WIDTH = 10_000  # nothing is cut where a program reads


def console() -> Console:
    """Standard output as rich writes to it; NO_COLOR and pipes are respected."""
    found = Console(highlight=False, soft_wrap=False)
    return found if found.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Rows below their columns; a status has its colour, and text cannot steer the terminal."""
    made = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*map(_cell, row))
    return made


def _cell(value: object) -> Text:
    text = "-" if value is None else on_one_line(str(value))
    return Text(text, style=STYLES.get(text, ""))


def show(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table."""
    console().print(table(columns, rows))


def show_json(value: Any) -> None:  # noqa: ANN401 - what JSON holds
    """Print a value for programs."""
    print(escaped_json(json.dumps(value, ensure_ascii=False)))


def progress_of(counts: dict[str, int]) -> str:
    """``ended/total`` of a plan's tasks, with those that failed."""
    ended = sum(counts[each] for each in ("COMPLETED", "FAILED", "SKIPPED", "CANCELLED"))
    failed = f", {counts['FAILED']} failed" if counts["FAILED"] else ""
    return f"{ended}/{sum(counts.values())}{failed}"
