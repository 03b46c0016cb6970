"""The shapes in which endpoints answer, as far as they are used; what else is there is ignored."""

import msgspec
from msgspec import Raw

from holdfast_worker.failures import TaskFailed

NULL = Raw(b"null")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class FunctionPart(msgspec.Struct, frozen=True):
    """A piece of a call; ``arguments`` is a text, from some servers the object itself."""

    name: str | None = None
    arguments: Raw = NULL


class ToolCallPart(msgspec.Struct, frozen=True):
    """A piece of the tool call at ``index``."""

    index: int | None = None
    id: str | None = None
    function: FunctionPart | None = None


class Words(msgspec.Struct, frozen=True):
    """A piece of a message, or a whole one."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: Raw = NULL
    reasoning: Raw = NULL
    tool_calls: tuple[ToolCallPart, ...] | None = None


class Choice(msgspec.Struct, frozen=True):
    """``delta`` in a stream, ``message`` in a document."""

    delta: Words | None = None
    message: Words | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One event of a stream, or a whole document."""

    id: Raw = NULL
    model: Raw = NULL
    choices: tuple[Choice, ...] | None = None
    usage: Raw = NULL
    error: Raw = NULL


_decode = msgspec.json.Decoder(Chunk).decode
_decode_anything = msgspec.json.Decoder().decode


def read_chunk(data: str) -> Chunk:
    """Raises `TaskFailed` for what has another shape."""
    try:
        return _decode(data)
    except _UNREADABLE as error:
        raise TaskFailed("bad_response", f"a malformed chunk: {error}") from error


def value_of(part: Raw | bytes) -> object:
    """The JSON value in ``part``; None when there is none that can be read."""
    try:
        return _decode_anything(part)
    except (*_UNREADABLE, ValueError):
        return None


def text_of(part: Raw) -> str:
    """The text in ``part``; "" when it is no text."""
    value = value_of(part)
    return value if isinstance(value, str) else ""
