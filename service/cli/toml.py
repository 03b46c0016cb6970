"""Writes a value as TOML on one line, with every character that a terminal would not print escaped.

https://toml.io/en/v1.0.0
"""

import json
from pathlib import Path
from typing import cast


class Unwritable(ValueError):
    """A text that TOML cannot hold: it has bytes that are not UTF-8."""


def toml_value(value: object) -> str:
    """``value`` (dicts, lists, texts, paths, numbers, booleans) as TOML; without None in a dict.

    Raises `Unwritable`.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case dict():
            pairs = cast("dict[str, object]", value).items()
            kept = [f"{_text(k)} = {toml_value(v)}" for k, v in pairs if v is not None]
            return "{" + ", ".join(kept) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(toml_value, cast("list[object]", value))) + "]"
        case str() | Path():
            return _text(str(value))
        case _:
            raise TypeError(type(value))


def _text(text: str) -> str:
    """A basic string: JSON's escapes, and TOML's own for what is not printed as itself."""
    if any("\ud800" <= each <= "\udfff" for each in text):
        raise Unwritable(text)
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)
