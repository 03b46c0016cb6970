"""JSON bodies, read strictly: into one Struct, with every part of them proven readable.

Parts that Holdfast passes on unread (``msgspec.Raw``) are read here once all the same: what is
accepted goes into the log and out to every reader, so it must be UTF-8, have numbers that fit, no
key twice in one object, and not be nested deeper than any reader can follow. A body that does not
fit is an `invalid_request` that names the place.
"""

from collections.abc import Generator, Iterable
from functools import cache
from typing import Any, cast

import msgspec
from litestar._openapi.schema_generation import SchemaCreator
from litestar.dto import AbstractDTO
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition

from service.http.instance_parts import parts_of
from service.http.ownership import checked_body
from service.http.problems import RequestRefused
from service.http.wording import in_words
from service.principals.principal import Principal
from streams.json_values import TOO_DEEP, NotJson, check_depth, prove

JSON_TYPE = b"application/json"
MAX_BODY_BYTES = 1024 * 1024

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
_read_anything = msgspec.json.Decoder().decode


class StrictBody(AbstractDTO[Any]):
    """The application's DTO for ``data``: Litestar's own reading is lax and refuses ``Raw``."""

    def decode_bytes(self, value: bytes) -> Any:  # noqa: ANN401 - the handler's annotation knows
        """The handler's Struct in a body that is not empty. Raises RequestRefused."""
        connection: Any = self.asgi_connection  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        body = connection.large if connection.large is not None else read(connection, value)
        principal: Principal | None = connection.scope["auth"]
        if principal is None:
            return body
        return checked_body(principal, body, parts_of(connection.scope).core.knows)

    @classmethod
    def create_for_field_definition(cls, *_: object, **__: object) -> None:
        """Nothing to prepare: msgspec decodes."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: SchemaCreator
    ) -> Reference | Schema:
        """The Struct's own schema."""
        del handler_id
        return schema_creator.for_field_definition(field_definition)

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition]:
        """Not used: fields are not renamed, hidden or nested by this DTO."""
        raise NotImplementedError

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        """Not used, see above."""
        raise NotImplementedError


def read(connection: Any, body: bytes) -> Any:  # noqa: ANN401 - the handler's annotation knows
    """The Struct that the handler of ``connection`` wants, in ``body``. Raises RequestRefused."""
    return reader_of(connection.route_handler.parsed_data_field.annotation)(body)


def check_content_type(given: bytes) -> None:
    """JSON must be called JSON: a browser then asks before it sends it from another site's page.

    A request without a body must do so, too: it changes something all the same.
    """
    if given != JSON_TYPE and given.partition(b";")[0].strip().lower() != JSON_TYPE:
        raise RequestRefused("invalid_request", "Content-Type: it must be application/json")


class BodyReader:
    """Reads JSON into one kind of Struct."""

    def __init__(self, kind: type[Any]) -> None:
        self._decode = msgspec.json.Decoder(kind).decode

    def __call__(self, body: bytes) -> Any:  # noqa: ANN401 - the caller knows the Struct
        """The Struct in ``body``. Raises RequestRefused."""
        try:
            check_depth(body)
            asked = self._decode(body)
            prove(body)
        except NotJson as error:
            raise RequestRefused("invalid_request", f"body: {error}") from None
        except _UNREADABLE as error:
            raise self._unreadable(body, error) from None
        return asked

    def _unreadable(self, body: bytes, error: Exception) -> RequestRefused:
        if isinstance(error, RecursionError):
            return RequestRefused("invalid_request", f"body: {TOO_DEEP}")
        try:
            place = _culprit(self._decode(body))
        except _UNREADABLE:
            place = None
        detail = f"{place}: {_in_words(error)[0]}" if place else _named(error)
        return RequestRefused("invalid_request", detail)


@cache
def reader_of(kind: type[Any]) -> BodyReader:
    """The one reader of a Struct."""
    return BodyReader(kind)


def _named(error: Exception) -> str:
    """Msgspec names the place last ("Expected `int` - at `$.limit`"); people look for it first."""
    text, place = _in_words(error)
    return f"{place or 'body'}: {text}"


def _in_words(error: Exception) -> tuple[str, str]:
    """The message, and the place that it names."""
    text, _, place = str(error).partition(" - at ")
    if isinstance(error, UnicodeDecodeError):
        text = "not valid UTF-8"
    if "truncated" in text:
        text = "not valid JSON: it ends too early, or a string holds half a surrogate pair"
    return in_words(text), place.strip("`").removeprefix("$").removeprefix(".")


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
