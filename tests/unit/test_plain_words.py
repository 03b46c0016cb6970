"""Our texts use plain words, and the name of a class or type of the product means one thing."""

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


def types() -> dict[str, list[str]]:
    """Per name of a public type of the product: the modules of its classes, and what else it means.

    Without `streams.plan.commands`, whose names are those of the events that they ask for, and
    without the worker kit, which is a distribution of its own.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for package in PRODUCT:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "worker_kit" in path.parts or path == ROOT / "streams/plan/commands.py":
                continue
            for node in ast.parse(path.read_text("utf-8")).body:
                match node:
                    case ast.ClassDef(name=name):
                        found[name].append(str(path.relative_to(ROOT)))
                    case ast.Assign(targets=[ast.Name(id=name)], value=meant):
                        found[name].append(ast.unparse(meant))
                    case _:
                        pass
    return {name: where for name, where in found.items() if is_public_type(name)}


def is_public_type(name: str) -> bool:
    """Whether a name is that of a public class, or of a type that has one: in CamelCase."""
    return name[0].isupper() and not name.isupper()


def test_the_name_of_a_type_means_one_thing() -> None:
    """The same type may be named twice, as the parsed JSON of two commands is."""
    ambiguous = {name: where for name, where in types().items() if len(set(where)) > 1}

    assert ambiguous == {}
