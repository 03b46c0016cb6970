"""Tables of the command line: they fit any terminal, keep ids whole, and are plain in a pipe."""

import io
from collections.abc import Sequence

import pytest
from rich.cells import cell_len
from rich.console import Console

from service.cli.table import fitted, plain

COLUMNS = ("PLAN", "STATUS", "TASKS", "SUBMITTED", "NAME")
LONG_ID = "a-plan-of-which-the-id-is-as-long-as-it-may-be-64-characters-or-s"
ROWS: list[Sequence[object]] = [
    ("demo", "RUNNING", "0/3", "4s", "A weekly report with a name longer than a narrow terminal"),
    ("日本語の名前", "FAILED", "1/1, 1 failed", "2h", "🦊 wide"),
    ("p3", "COMPLETED", "1/1", "3d", None),
]


def printed(rows: list[Sequence[object]], width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    out.print(fitted(COLUMNS, rows, width))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_ids_stay_whole(width: int) -> None:
    lines = printed(ROWS, width)
    assert max(map(cell_len, lines)) <= width
    for plan_id, status, *_ in ROWS:
        assert any(str(plan_id) in line for line in lines)
        assert any(str(status) in line for line in lines)


def test_a_long_id_is_one_word_on_80_columns() -> None:
    lines = printed([(LONG_ID, "RUNNING", "0/3", "4s", "a name")], 80)
    assert f"PLAN      {LONG_ID}" in [line.rstrip() for line in lines]
    assert "STATUS    RUNNING" in [line.rstrip() for line in lines]


def test_a_wide_terminal_has_one_row_per_line() -> None:
    assert len(printed(ROWS, 120)) == len(ROWS) + 1


def test_a_pipe_has_one_row_per_line_without_spaces_at_the_end() -> None:
    rows = [*ROWS, ("p4", "FAILED", "1/1", "4d", "x" * 20_000)]
    lines = list(plain(COLUMNS, rows))
    assert len(lines) == len(rows) + 1
    assert [line for line in lines if line != line.rstrip()] == []
    assert lines[-1].endswith("x" * 20_000), "nothing is cut"
    assert {line.index(word) for line, word in zip(lines, ("STATUS", "RUNNING"), strict=False)} == {
        14
    }
