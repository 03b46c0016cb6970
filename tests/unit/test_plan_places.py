"""Line and column of what an instance refused, in each format that a plan may be written in."""

import json
import tomllib
from typing import Any

import pytest
import yaml

from service.cli.plan_places import place_of

JSON = """{"name": "p",
\t"tasks": [
\t\t{"id": "a", "kind": "echo", "input": {"tasks": [1, {"kind": 2}]}},
\t\t{"id": "b", "kind": 5,
\t\t "inptu": 1}
\t]}"""

YAML = """# a plan
name: p
tasks:
  - id: a
    kind: echo
    input: {tasks: [1, {kind: 2}]}
  - id: b
    inptu: 1
    kind: 5
"""

TOML = '''# [[tasks]] in a comment is none
name = "p"
context.text = """
[[tasks]]
inptu = 2
"""
[[tasks]]
id = "a"
kind = "echo"
[tasks.input]
kind = 2

[[tasks]]
id = "b"
  inptu = 1
kind = 5
depends_on = ["a#b", { x = 1 }]
'''

READ: dict[str, tuple[str, Any]] = {
    ".json": (JSON, json.loads),
    ".yaml": (YAML, yaml.safe_load),
    ".toml": (TOML, tomllib.loads),
}


@pytest.mark.parametrize(
    ("detail", "places"),
    [
        ("tasks[1].kind: it must be text", {".json": (4, 15), ".yaml": (9, 5), ".toml": (16, 1)}),
        (
            "tasks[1]: there is no field `inptu`",
            {".json": (5, 4), ".yaml": (8, 5), ".toml": (15, 3)},
        ),
        ("name: it must have at most", {".json": (1, 2), ".yaml": (2, 1), ".toml": (2, 1)}),
        ("body: there is no field `name`", {".json": (1, 2), ".yaml": (2, 1), ".toml": (2, 1)}),
        ("task 'b': depends_on names", {".json": (4, 3), ".yaml": (7, 5), ".toml": (13, 1)}),
        ("tasks[0].input.kind: x", {".toml": (11, 1)}),
        ("tasks[1].depends_on[1].x: x", {".toml": (17, 1)}),
        ("task 'c': what", dict.fromkeys(READ)),
        ("there is no such thing", dict.fromkeys(READ)),
    ],
)
def test_the_place_is_found(detail: str, places: dict[str, tuple[int, int] | None]) -> None:
    for suffix, place in places.items():
        text, read = READ[suffix]
        assert place_of(detail, read(text), text, suffix) == place, suffix


def test_a_field_in_one_line_is_found_by_its_column() -> None:
    text = "tasks: [{id: a, kind: echo, retires: 1}]"
    found = place_of("tasks[0]: there is no field `retires`", yaml.safe_load(text), text, ".yaml")
    assert found == (1, text.index("retires") + 1)


def test_a_text_that_yaml_cannot_read_has_no_place() -> None:
    assert place_of("name: x", {"name": 1}, "\x00", ".json") is None
