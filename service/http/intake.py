"""Takes a request apart: the body up to its limit, JSON that is JSON all the way down, the query.

Parts that Holdfast passes on unread (``msgspec.Raw``) are read here once all the same: what is
accepted goes into the log and out to every reader, so it must be UTF-8, have numbers that fit and
not be nested deeper than any reader can follow. Whatever does not fit is an `invalid_request` that
names the place.
"""

import re
from collections.abc import Iterable
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec
from litestar.types import Receive

from service.http.problems import Refusal

MAX_BODY_BYTES = 1024 * 1024
MAX_DEPTH = 100
MAX_QUERY_FIELDS = 50

T = TypeVar("T")

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
_read_anything = msgspec.json.Decoder().decode
_strings = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")


class ClientGone(Exception):
    """Whoever asked has hung up before the request was complete."""


def too_large() -> Refusal:
    """The body is over the limit."""
    return Refusal("too_large", f"the body is larger than {MAX_BODY_BYTES} bytes")


async def read_body(receive: Receive, announced: bytes | None) -> bytes:
    """The whole body; ``announced`` is its Content-Length. Raises Refusal, ClientGone."""
    if announced is not None and announced.isdigit() and int(announced[:20]) > MAX_BODY_BYTES:
        raise too_large()
    message: Any = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return _within_limit(body)
    parts = bytearray()
    while message["type"] == "http.request":
        parts += message.get("body", b"")
        _within_limit(parts)
        if not message.get("more_body"):
            return bytes(parts)
        message = await receive()
    raise ClientGone


def _within_limit(body: T) -> T:
    if len(body) > MAX_BODY_BYTES:  # type: ignore[arg-type]
        raise too_large()
    return body


class BodyReader:
    """Reads JSON into one kind of Struct, and makes sure of the parts that stay unread."""

    def __init__(self, kind: type[Any]) -> None:
        self._decode = msgspec.json.Decoder(kind).decode
        self._has_unread_parts = _holds_raw(msgspec.inspect.type_info(kind), set())

    def __call__(self, body: bytes) -> Any:  # noqa: ANN401 - the route knows the Struct
        """The Struct in ``body``. Raises Refusal."""
        try:
            asked = self._decode(body)
            if self._has_unread_parts:
                _read_anything(body)
        except _UNREADABLE as error:
            raise _unreadable(body, error, self._decode) from None
        if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper_than(body, MAX_DEPTH):
            raise _too_deep()
        return asked


def _too_deep() -> Refusal:
    return Refusal("invalid_request", f"body: nested more than {MAX_DEPTH} levels deep")


def _unreadable(body: bytes, error: Exception, decode: Any) -> Refusal:  # noqa: ANN401
    if isinstance(error, RecursionError):
        return _too_deep()
    if not body:
        return Refusal("invalid_request", "body: it is empty, JSON is expected")
    try:
        place = _culprit(decode(body))
    except _UNREADABLE:
        place = None
    return Refusal("invalid_request", f"{place}: {error}" if place else _named(error, "body"))


def _named(error: Exception, whole: str) -> str:
    """Msgspec says where last ("Expected `int` - at `$.limit`"); people look for it first."""
    text, _, place = str(error).partition(" - at ")
    if isinstance(error, UnicodeDecodeError):
        text = "not valid UTF-8"
    if "truncated" in text:
        text = "not valid JSON: it ends too early, or a string holds half a surrogate pair"
    place = place.strip("`").removeprefix("$").removeprefix(".")
    return f"{place or whole}: {text}"


def _culprit(part: object, place: str = "") -> str | None:
    """Where, among the unread parts, something cannot be read."""
    match part:
        case msgspec.Raw():
            try:
                _read_anything(part)
            except _UNREADABLE:
                return place or "body"
        case msgspec.Struct():
            fields = zip(part.__struct_fields__, part.__struct_encode_fields__, strict=True)
            inside = ((getattr(part, name), f"{place}.{shown}") for name, shown in fields)
            return _first_culprit(inside)
        case tuple():
            items = cast("tuple[object, ...]", part)
            return _first_culprit((item, f"{place}[{n}]") for n, item in enumerate(items))
        case _:
            pass
    return None


def _first_culprit(parts: Iterable[tuple[object, str]]) -> str | None:
    found = (_culprit(part, place.removeprefix(".")) for part, place in parts)
    return next((place for place in found if place), None)


def _deeper_than(body: bytes, levels: int) -> bool:
    """Whether brackets nest deeper than ``levels``; each pass takes the innermost level away."""
    brackets = _strings.sub(b"", body).translate(_AS_SQUARE, _NOT_BRACKETS)
    for _ in range(levels):
        if not brackets:
            return False
        brackets = _innermost.sub(b"", brackets)
    return bool(brackets)


_innermost = re.compile(rb"(?:\[\])+")


def _holds_raw(info: Any, seen: set[type]) -> bool:  # noqa: ANN401 - msgspec's types share no base
    """Whether a ``Raw`` can stand anywhere inside the type."""
    match info:
        case msgspec.inspect.RawType():
            return True
        case msgspec.inspect.StructType():
            if info.cls in seen:
                return False
            seen.add(info.cls)
            return any(_holds_raw(field.type, seen) for field in info.fields)
        case msgspec.inspect.UnionType():
            return any(_holds_raw(each, seen) for each in info.types)
        case msgspec.inspect.VarTupleType() | msgspec.inspect.ListType():
            return _holds_raw(info.item_type, seen)
        case _:
            return False


def read_query(query_string: bytes, kind: type[T]) -> T:
    """The query as a Struct; raises Refusal for parameters repeated or unknown."""
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except ValueError as error:
        raise Refusal("invalid_request", f"query: {error}") from None
    given = dict(pairs)
    if len(given) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise Refusal("invalid_request", f"{repeated}: given more than once")
    try:
        return msgspec.convert(given, kind, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise Refusal("invalid_request", _named(error, "query")) from None
