"""Our texts use plain words, and a class name of the product means one thing."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("service", "streams", "projections")
TEXTS = (*PRODUCT, "docs", "examples", "tests")
ENDINGS = {".py", ".md", ".js", ".css", ".html", ".yaml", ".toml", ".conf"}
LIBRARIES = "vendor"

RIDDLES = (
    "whoever",
    "whomever",
    "is told",
    "are told",
    "says? so",
    "lets? go of",
    "in its midst",
    "buries",
    "looks? away",
    "cold head",
    "afar",
    "machine room",
    "narrator",
    "aloud",
    "in vain",
    "comes? round",
)
"""Words that a reader has to interpret: name the thing, the client or the process instead."""

_riddle = re.compile(rf"\b(?:{'|'.join(RIDDLES)})\b", re.IGNORECASE)
Place = tuple[str, int]


def texts() -> Iterator[Path]:
    """Our own texts, but this one."""
    yield from ROOT.glob("*.md")
    for folder in TEXTS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in ENDINGS and LIBRARIES not in path.parts and path != Path(__file__):
                yield path


def riddles(text: str) -> list[tuple[int, str]]:
    """The lines, from 1, that hold a word of RIDDLES."""
    return [
        (number, found.group())
        for number, line in enumerate(text.split("\n"), 1)
        if (found := _riddle.search(line))
    ]


def test_no_text_holds_a_riddle() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word}"
        for path in texts()
        for number, word in riddles(path.read_text("utf-8"))
    ]

    assert found == [], "say who or what it is:\n" + "\n".join(found)


def test_a_riddle_is_found() -> None:
    assert riddles("The log\nWhoever asks is told.\nafarensis") == [(2, "Whoever")]


def classes() -> dict[str, list[str]]:
    """The modules of the product that define a public class of a name.

    Without `streams.plan.commands`, whose names are those of the events that they ask for, and
    without the worker kit, which is a distribution of its own.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for package in PRODUCT:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "worker_kit" in path.parts or path == ROOT / "streams/plan/commands.py":
                continue
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(str(path.relative_to(ROOT)))
    return found


def test_a_class_name_means_one_thing() -> None:
    ambiguous = {name: where for name, where in classes().items() if len(where) > 1}

    assert ambiguous == {}
