"""ARCHITECTURE.md tells of every room of the house, and numbers its decisions."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
TABLE = TEXT[TEXT.index("## Where things live") : TEXT.index("## Threads")]


def rooms(package: str) -> set[str]:
    """The modules and packages right below a package; `__init__` and `__main__` are no rooms."""
    below = list((ROOT / package).iterdir())
    files = {each.name for each in below if each.suffix == ".py" and not each.stem.endswith("__")}
    return files | {f"{each.name}/" for each in below if (each / "__init__.py").exists()}


def told(package: str) -> set[str]:
    """The rooms that the table's first column names below a package."""
    named = re.findall(rf"^\| `{package}/([^`]*)`", TABLE, re.MULTILINE)
    return {room for names in named for room in names.split()}


@pytest.mark.parametrize("package", ["streams", "projections", "service"])
def test_every_room_stands_in_the_table_and_nothing_else(package: str) -> None:
    assert told(package) == rooms(package)


def test_decisions_are_numbered_without_gaps_or_twins() -> None:
    decisions = TEXT[TEXT.index("## Decisions") : TEXT.index("## What is deliberately absent")]
    numbers = [int(number) for number in re.findall(r"^(\d+)\. \*\*", decisions, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
