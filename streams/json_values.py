"""JSON that Holdfast stores and passes on unread: what may be written, and how it is checked.

A value that comes from outside goes into the log and out to every reader. So it must be UTF-8, have
numbers that JSON can write, name each key once, and not be nested deeper than a reader can follow.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec
from msgspec import Raw

MAX_DEPTH = 100
"""How many arrays and objects may stand inside one another."""

TEXT_CHARACTERS = 2_000

_encode = msgspec.json.encode
_decode = msgspec.json.decode
_UNREADABLE = (TypeError, ValueError, OverflowError, msgspec.MsgspecError)


class NotJson(ValueError):
    """A value that JSON cannot hold as it is; the message says what is wrong, and where."""


def encoded(value: object) -> Raw:
    """``value`` as JSON from which every reader gets the same value back. Raises `NotJson`.

    What msgspec writes otherwise than it was meant is refused: NaN and infinities (it writes
    ``null``) and two keys of an object that are one key as text (``1`` and ``"1"``).
    """
    try:
        data = _encode(value)
    except RecursionError:
        raise NotJson(_TOO_DEEP) from None
    except UnicodeEncodeError as error:
        raise NotJson(f"a text is not valid Unicode: {error}") from None
    except _UNREADABLE as error:
        raise NotJson(str(error)) from None
    check(data)
    if b"null" in data and (place := _not_finite(_plain(value))):
        raise NotJson(f"{place} is NaN or infinite, and JSON has no such number; use None")
    return Raw(data)


def text_of(value: object, most: int = TEXT_CHARACTERS) -> str:
    r"""``value`` as text that can be stored, at most ``most`` characters; never raises.

    Half a surrogate pair, as in a file name that is not UTF-8, is written as ``\udce9``.
    """
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - __str__ of user code
        text = f"{type(value).__name__} (str() of it raised {type(error).__name__})"
    return text[:most].encode("utf-8", "backslashreplace").decode()[:most]


def check(data: bytes | Raw) -> None:
    """Make sure that ``data`` is one JSON value that every reader can follow. Raises `NotJson`."""
    try:
        value = _decode(data)
        again = _encode(value)
    except RecursionError:
        raise NotJson(_TOO_DEEP) from None
    except _UNREADABLE as error:
        raise NotJson(str(error)) from None
    text = bytes(data)
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise NotJson(_TOO_DEEP)
    # A key that stands there twice is lost by reading; so is white space.
    if len(again) < len(text) and (key := _repeated_key(text)) is not None:
        raise NotJson(f"an object has the key {json.dumps(key)} twice")


_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep, or a value that contains itself"


def _is_deeper(value: object, levels: int) -> bool:
    """Whether containers stand in one another more than ``levels`` deep; one pass per level."""
    level: list[object] = [value]
    for _ in range(levels):
        if not level:
            return False
        level = [child for each in level for child in _children(each)]
    return any(isinstance(each, list | dict) for each in level)


def _children(value: object) -> Iterable[object]:
    match value:
        case dict():
            return cast("dict[str, object]", value).values()
        case list():
            return cast("list[object]", value)
        case _:
            return ()


def _repeated_key(data: bytes) -> str | None:
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        kept = dict(pairs)
        if len(kept) < len(pairs):
            found.append(Counter(name for name, _ in pairs).most_common(1)[0][0])
        return kept

    json.loads(data, object_pairs_hook=look)
    return found[0] if found else None


def _plain(value: object) -> object:
    """The value in dicts, lists and scalars; what has a form of its own in JSON stands as None."""
    return msgspec.to_builtins(value, str_keys=True, enc_hook=lambda _: None)


def _not_finite(value: object, place: str = "$") -> str | None:
    """Where a number is that JSON cannot write, such as ``$.scores[2]``."""
    match value:
        case float():
            return None if math.isfinite(value) else place
        case dict():
            inside = cast("Mapping[str, object]", value).items()
            named = ((each, f"{place}.{name}") for name, each in inside)
        case list():
            inside = enumerate(cast("list[object]", value))
            named = ((each, f"{place}[{index}]") for index, each in inside)
        case _:
            return None
    return next((found for each in named if (found := _not_finite(*each))), None)
