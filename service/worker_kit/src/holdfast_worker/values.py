"""Values of handlers as JSON and back; types may be of msgspec, dataclasses or pydantic."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import msgspec
from msgspec import Raw

_ADVICE = "return dicts, lists, text and numbers, or a msgspec, dataclass or pydantic type"


class NotJson(ValueError):
    """A value that JSON cannot hold as it is; the message names what is wrong."""


def encoded(value: object) -> Raw:
    """``value`` as JSON. Raises `NotJson`, also for NaN, which msgspec would write as null."""
    try:
        data = _encoder.encode(value)
        if b"null" in data:
            _check_finite(msgspec.to_builtins(value, str_keys=True, enc_hook=_plain), "$")
    except RecursionError:
        raise NotJson("a value that contains itself, or is nested too deep") from None
    except UnicodeEncodeError as error:
        raise NotJson(f"a text is not valid Unicode: {error}") from None
    except NotJson:
        raise
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise NotJson(f"{error}; {_ADVICE}") from None
    return Raw(data)


def _check_finite(value: object, place: str) -> None:
    """Raise `NotJson` naming a number that JSON cannot write, such as ``$.scores[2]``."""
    match value:
        case float() if not math.isfinite(value):
            raise NotJson(f"{place} is NaN or infinite, and JSON has no such number; use None")
        case dict():
            for name, each in cast("Mapping[str, object]", value).items():
                _check_finite(each, f"{place}.{name}")
        case list():
            for index, each in enumerate(cast("list[object]", value)):
                _check_finite(each, f"{place}[{index}]")
        case _:
            pass


def decoded(data: bytes | Raw, kind: Any = Any) -> Any:  # noqa: ANN401 - of that type
    """JSON as a ``kind``. Raises msgspec.ValidationError, or pydantic's own, naming the field."""
    if (validate := getattr(kind, "model_validate_json", None)) is not None:
        return validate(bytes(data))
    return _decoder(kind).decode(data)


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 - a type
    return msgspec.json.Decoder(kind)


def _plain(value: object) -> Any:  # noqa: ANN401 - any JSON
    """A pydantic model's own idea of its JSON; anything else cannot be written."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"JSON cannot hold a value of the type {type(value).__name__!r}")
    return dump(mode="json")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
