"""Rules for tests that no linter knows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MOST_LINES = 400


def replaced_names(source: str) -> Iterator[tuple[int, str]]:
    """The line and the last name of each ``monkeypatch.setattr`` with a name in quotes."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "setattr"
        ):
            for each in node.args[:2]:
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield node.lineno, each.value.rpartition(".")[2]


def is_bound_or_private(name: str) -> bool:
    return name.isupper() or name.startswith("_")


def test_no_test_replaces_a_constant_or_a_private_name() -> None:
    """A bound that a test needs smaller is a field of a frozen `Limits`, and passed in."""
    found = [
        f"{path.relative_to(TESTS)}:{line}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        for line, name in replaced_names(path.read_text())
        if is_bound_or_private(name)
    ]
    assert not found


def test_no_module_of_the_tests_is_too_long_to_be_read() -> None:
    """One that has two subjects is two modules; what they share is a third, or a `conftest.py`."""
    lines = {
        str(path.relative_to(TESTS)): path.read_text().count("\n") for path in TESTS.rglob("*.py")
    }
    assert len(lines) > 300
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


@pytest.mark.parametrize(
    "line",
    [
        'monkeypatch.setattr(module, "SLOW_S", 1)',
        'monkeypatch.setattr("package.module.SLOW_S", 1)',
        'patch.setattr(Consumer, "_deliver", lossy)',
    ],
)
def test_the_rule_finds_what_it_forbids(line: str) -> None:
    assert any(is_bound_or_private(name) for _, name in replaced_names(line))
