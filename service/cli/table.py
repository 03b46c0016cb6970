"""Tables that fit the terminal; in a pipe plain text without colours, one row per line.

Where the columns have no room beside each other, each row is a block with a field per line. A first
column is never broken: it holds the id, which is to be copied.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from service.runtime.terminal import escaped_json, on_one_line

STYLES = {
    "RUNNING": "blue", "READY": "magenta", "REFINING": "magenta", "COMPLETED": "green",
    "FAILED": "bold red", "PAUSED": "yellow", "SKIPPED": "yellow", "CANCELLED": "dim",
}  # fmt: skip
NARROW = 14  # a longer column may be as narrow as this, and is folded
BETWEEN = "  "

Cells = list[list[str]]


def console() -> Console:
    """Standard output as rich writes to it; NO_COLOR is respected."""
    return Console(highlight=False, soft_wrap=False)


def say(text: str, *, indent: int = 0) -> None:
    """Print a line, on a terminal broken between words."""
    out = console()
    if out.is_terminal:
        out.print(Padding(Text(text), (0, 0, 0, indent)))
    else:
        print(" " * indent + text)


def show(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table."""
    out = console()
    if out.is_terminal:
        out.print(fitted(columns, rows, out.width))
    else:
        for line in plain(columns, rows):
            print(line)


def plain(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Rows below their columns, nothing cut or folded, and no space at the end of a line."""
    cells = _cells(columns, rows)
    widths = _widths(cells)
    for row in cells:
        aligned = [
            text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True)
        ]
        yield BETWEEN.join(aligned).rstrip()


def fitted(columns: Sequence[str], rows: Iterable[Sequence[object]], width: int) -> RenderableType:
    """A table no wider than ``width``; a status has its colour."""
    cells = _cells(columns, rows)
    first, *others = _widths(cells)
    least = [first, *(min(natural, NARROW) for natural in others)]
    if sum(least) + len(BETWEEN) * len(others) > width:
        return _blocks(cells)
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, len(BETWEEN), 0, 0))
    for column, narrow in zip(columns, least, strict=True):
        made.add_column(column, overflow="fold", min_width=narrow)
    for row in cells[1:]:
        made.add_row(*map(_styled, row))
    return made


def _blocks(cells: Cells) -> Table:
    """Each row as a block: its first field, and below it every field that is not empty."""
    columns, *rows = cells
    made = Table.grid(padding=(0, 1, 0, 0))
    made.add_column(no_wrap=True, style="bold")
    made.add_column(overflow="fold")
    for number, row in enumerate(rows):
        if number:
            made.add_row()
        for column, text in zip(columns, row, strict=True):
            if text:
                made.add_row(column, _styled(text))
    return made


def _cells(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Cells:
    """Every text as it is printed, the names of the columns first; none steers the terminal."""
    return [list(columns), *([_text(value) for value in row] for row in rows)]


def _text(value: object) -> str:
    return "-" if value is None else on_one_line(str(value))


def _styled(text: str) -> Text:
    return Text(text, style=STYLES.get(text, ""))


def _widths(cells: Cells) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*cells, strict=True)]


def show_items(
    items: Sequence[Any],
    columns: Sequence[str],
    row: Callable[[Any], Sequence[object]],
    *,
    as_json: bool,
) -> None:
    """Print items of an answer as a table, or for programs each as a line of JSON."""
    if not as_json:
        show(columns, map(row, items))
        return
    for each in items:
        show_json(each)


def show_json(value: Any) -> None:  # noqa: ANN401 - what JSON holds
    """Print a value for programs."""
    print(escaped_json(json.dumps(value, ensure_ascii=False)))


def progress_of(counts: dict[str, int]) -> str:
    """``ended/total`` of a plan's tasks, with those that failed."""
    ended = sum(counts[each] for each in ("COMPLETED", "FAILED", "SKIPPED", "CANCELLED"))
    failed = f", {counts['FAILED']} failed" if counts["FAILED"] else ""
    return f"{ended}/{sum(counts.values())}{failed}"
