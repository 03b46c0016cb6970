"""Finds the line and column of what an instance refused in a plan's file: JSON, YAML or TOML."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import yaml

Path = tuple[str | int, ...]
"""Names and list positions from the plan to a value in it."""

LineColumn = tuple[int, int]
"""A line and a column, both from 1."""

_about_task = re.compile(r"task '([^']+)'").match
_named = re.compile(r"([A-Za-z_]\w*(?:\.\w+|\[\d+\])*)(?:\[\.\.\.\])?: (.*)", re.DOTALL).fullmatch
_unknown = re.compile(r"there is no field `(.+)`", re.DOTALL).fullmatch
_part = re.compile(r"\[(\d+)\]|(\w+)")

_toml_text = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*', re.DOTALL
)
_toml_line = re.compile(
    r"[ \t]*(?:\[\[(?P<item>[^\]]+)\]\]|\[(?P<table>[^\]]+)\]|(?P<key>[\w.\"' -]+?)[ \t]*=)"
)


def place_of(detail: str, plan: Mapping[str, Any], text: str, suffix: str) -> LineColumn | None:
    """Where in ``text`` stands what ``detail`` names; None if it names no part of the plan."""
    path = path_of(detail, plan)
    if path is None:
        return None
    return _toml_place(text, path) if suffix == ".toml" else _yaml_place(text, path)


def path_of(detail: str, plan: Mapping[str, Any]) -> Path | None:
    """The part of ``plan`` that the detail of a refusal names first, as the API names parts."""
    if about := _about_task(detail):
        ids = [_id_of(task) for task in plan.get("tasks", ())]
        return ("tasks", ids.index(about[1])) if about[1] in ids else None
    if (found := _named(detail)) is None:
        return None
    place = "" if found[1] == "body" else found[1]
    path = tuple(int(n) if n else name for n, name in _part.findall(place))
    unknown = _unknown(found[2])
    return (*path, unknown[1]) if unknown else path


def _id_of(task: object) -> object:
    return cast("Mapping[str, object]", task).get("id") if isinstance(task, dict) else None


def _yaml_place(text: str, path: Path) -> LineColumn | None:
    """JSON is read as YAML, in which a tab may not stand for a space."""
    try:
        node = yaml.SafeLoader(text.replace("\t", " ")).get_single_node()
    except (yaml.YAMLError, RecursionError):
        return None
    if node is None:
        return None
    mark = cast("yaml.Mark", node.start_mark)
    for part in path:
        found = _inside(node, part)
        if found is None:
            break
        mark, node = found[0].start_mark, found[1]
    return mark.line + 1, mark.column + 1


def _inside(node: yaml.Node, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """What shows where a part begins (its key, if it has one), and the part itself."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    if isinstance(node, yaml.MappingNode):
        return next((pair for pair in node.value if pair[0].value == part), None)
    return None


def _toml_place(text: str, path: Path) -> LineColumn | None:
    """The nearest header or key; what stands in an inline table is found by the key before it."""
    places = dict(_toml_places(_toml_text.sub(_blank, text)))
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return places[path[:length]]
    return None


def _blank(found: re.Match[str]) -> str:
    """Keeps what may be a key; of comments and texts over several lines only their extent."""
    text = found[0]
    if text[0] == "#" or text[:3] in {'"""', "'''"}:
        return re.sub(r"[^\n]", " ", text)
    return text


def _toml_places(text: str) -> Iterator[tuple[Path, LineColumn]]:
    table: Path = ()
    items: dict[Path, int] = {}  # lists of tables, and the position of the last of each
    for number, line in enumerate(text.split("\n"), 1):
        found = _toml_line.match(line)
        if found is None:
            continue
        name = cast("str", found["item"] or found["table"] or found["key"])
        names = [each.strip(" \"'") for each in name.split(".")]
        if found["key"]:
            path = (*table, *names)
        else:
            path = table = _table_of(names, items, begins=bool(found["item"]))
        yield path, (number, len(line) - len(line.lstrip()) + 1)


def _table_of(names: list[str], items: dict[Path, int], *, begins: bool) -> Path:
    path: Path = ()
    for position, name in enumerate(names):
        path = (*path, name)
        if begins and position == len(names) - 1:
            items[path] = items.get(path, -1) + 1
        if path in items:
            path = (*path, items[path])
    return path
