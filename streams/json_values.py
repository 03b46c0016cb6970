"""JSON that Holdfast stores and passes on unread: what may be written, and how it is checked.

A value that comes from outside goes into the log and out to every reader. So it must be UTF-8, have
numbers that JSON can write, name each key once, and not be nested deeper than a reader can follow.
"""

import gc
import json
import math
from array import array
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from typing import Any, cast

import msgspec
from msgspec import Raw

MAX_DEPTH = 100
"""How many arrays and objects may stand inside one another."""

MAX_PARTS = 200_000
"""How many arrays, objects and members of objects one value may have.

Each takes time wherever it is read, and nothing else runs during one call into a JSON library.
"""

TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
TEXT_CHARACTERS = 2_000
SMALL_BYTES = 16 * 1024  # with parts too few to begin a garbage collection, or more than one
FLAT = 5  # levels that most JSON does not exceed

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding bytes from outside may raise: bytes that are not UTF-8 are a ValueError."""

_NOTHING = nullcontext[None]()
_encode = msgspec.json.encode
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NOT_MARKS = bytes(set(range(256)) - set(b'[]{}:"'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_UNREADABLE = (TypeError, ValueError, OverflowError, msgspec.MsgspecError)


class NotJson(ValueError):
    """A value that JSON cannot hold as it is; the message says what is wrong, and where."""


def _finite(text: str) -> float:
    """A number written with a point or an exponent, as Python reads it.

    msgspec takes 7 µs for each that has more than 19 digits, so a megabyte of them 240 ms.
    """
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number out of range: {text[:40]}")
    return value


_decode = msgspec.json.Decoder[Any](float_hook=_finite).decode


def encoded(value: object) -> Raw:
    """``value`` as JSON from which every reader gets the same value back. Raises `NotJson`.

    What msgspec writes otherwise than it was meant is refused: NaN and infinities (it writes
    ``null``) and two keys of an object that are one key as text (``1`` and ``"1"``).
    """
    try:
        data = _encode(value)
    except RecursionError:
        raise NotJson(f"{TOO_DEEP}, or a value that contains itself") from None
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
    if text.isascii():
        return text[:most]
    return text[:most].encode("utf-8", "backslashreplace").decode()[:most]


def check(data: bytes | Raw) -> None:
    """Make sure that ``data`` is one JSON value that every reader can follow. Raises `NotJson`."""
    try:
        check_depth(held := bytes(data))
        prove(held)
    except RecursionError:
        raise NotJson(TOO_DEEP) from None
    except _UNREADABLE as error:
        raise NotJson(str(error)) from None


def prove(data: bytes) -> None:
    """`check`, but raises what decoding raises, with its place, where ``data`` cannot be read.

    `check_depth` comes before it.
    """
    with _NOTHING if len(data) <= SMALL_BYTES else _no_collection():
        value = _decode(data)
        again = _encode(value)
        del value  # a step of its own: other threads may run in between
    if (key := _repeated_key(data, again)) is not None:
        raise NotJson(f"the key {key[:100]!r} stands twice in one object")


def check_depth(data: bytes) -> None:
    """Raise `NotJson` where ``data`` is too deep or has too many parts; it may be no JSON."""
    marks = data.translate(None, _NOT_MARKS)  # those in strings, too
    containers = marks.count(b"[") + marks.count(b"{")
    if containers > MAX_DEPTH and deeper_than(data, MAX_DEPTH):
        raise NotJson(TOO_DEEP)
    if containers + marks.count(b":") > MAX_PARTS and _parts(data) > MAX_PARTS:
        raise NotJson(f"more than {MAX_PARTS:,} arrays, objects and members of objects")


def deeper_than(data: bytes, levels: int) -> bool:
    """Whether brackets nest deeper than ``levels``, by arithmetic: decoding comes afterwards."""
    steps = _without_strings(data).translate(_STEPS, _NOT_BRACKETS)
    if b"\x01" * (levels + 1) in steps:
        return True
    for _ in range(min(FLAT, levels)):
        steps, levels = steps.replace(b"\x01\xff", b""), levels - 1  # the innermost level
    return max(accumulate(array("b", steps)), default=0) > levels


def _parts(data: bytes) -> int:
    """How many arrays, objects and members of objects there are."""
    outside = _without_strings(data)
    return outside.count(b"[") + outside.count(b"{") + outside.count(b":")


@contextmanager
def _no_collection() -> Generator[None]:
    """No garbage collection: a megabyte of small containers would begin one after every 700."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _without_strings(data: bytes) -> bytes:
    """The brackets and colons outside of strings; a backslash stands only inside."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes in a row are a string without marks, or the end of one and the start of the next.
    marks = data.translate(None, _NOT_MARKS).replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2])


def _repeated_key(data: bytes, again: bytes) -> str | None:
    """A key that stands twice in one object: readers would differ in which value they see.

    Each member has one colon. Where decoding and encoding ``again`` loses none, none was lost.
    """
    members = data.count(b":")
    if members < 2:  # noqa: PLR2004 - one member clashes with no other
        return None
    if again.count(b":") == members and b"\\" not in data:
        return None
    if _without_strings(again).count(b":") == _without_strings(data).count(b":"):
        return None
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
