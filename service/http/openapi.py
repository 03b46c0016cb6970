"""The OpenAPI document: Litestar describes the routes, msgspec the Structs that do the checking.

What the document says about bodies and answers comes from the library that also enforces it, so the
document cannot promise what the service does not keep.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Litestar, Request, Router
from litestar._openapi.plugin import OpenAPIPlugin
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Operation, Schema, SecurityScheme
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition
from msgspec.json import schema_components

from service.http.event_schemas import EVENT_STREAM, REF, event_components, stream_schema
from service.http.schemas import END

DESCRIPTION = "Runs the tasks of AI-agent plans under leases; every fact is one message in a log."
# A token, or a session; an instance without a tokens file asks for neither, so both are optional.
BEARER: Sequence[dict[str, list[str]]] = ({"bearer": []}, {"session": []}, {})

Json = dict[str, Any]


@dataclass
class OptionalBody(Operation):
    """The operation may be asked for without a body; Litestar's document always wants one."""

    def __post_init__(self) -> None:
        if self.request_body is not None and not isinstance(self.request_body, str):
            self.request_body.required = False  # type: ignore[union-attr]


@dataclass
class StructSchema(Schema):
    """A schema that msgspec has written: it is shown as it is."""

    content: Json | None = None

    def to_schema(self) -> Json:
        """The content."""
        return self.content or {}


class StructSchemas(OpenAPISchemaPlugin):
    """Hands out msgspec's own schemas: Litestar's lose bounds and accept unknown fields."""

    def __init__(self) -> None:
        self._kinds: list[Any] = []

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """Structs; Litestar describes the types of parameters well."""
        return not field_definition.is_union and field_definition.is_subclass_of(msgspec.Struct)

    def to_openapi_schema(
        self, field_definition: FieldDefinition, schema_creator: object
    ) -> Schema:
        """A reference to the Struct's schema."""
        del schema_creator
        self._kinds.append(field_definition.annotation)
        (reference,), _ = schema_components([field_definition.annotation], ref_template=REF)
        return StructSchema(content=reference)

    def components(self) -> Json:
        """The schemas of every Struct that was referred to."""
        _, components = schema_components(self._kinds, ref_template=REF)
        return components


class Document(JsonRenderPlugin):
    """Serves the document, completed by the Structs' schemas, at /schema/openapi.json."""

    def __init__(self, schemas: StructSchemas) -> None:
        super().__init__()
        self._schemas = schemas
        self._making = asyncio.Lock()
        self._rendered = b""

    async def make(self, request: Request[Any, Any, Any]) -> None:
        """Make it before the first request for it is answered, beside the loop: it takes 0.3 s."""
        async with self._making:
            if not self._rendered:
                self._rendered = await asyncio.to_thread(self._make, request.app)

    def _make(self, app: Litestar) -> bytes:
        described = app.plugins.get(OpenAPIPlugin).provide_openapi_schema()
        complete_document(described, event_components() | self._schemas.components())
        return msgspec.json.encode(_plain(described))

    def render(self, request: Request[Any, Any, Any], openapi_schema: Json) -> bytes:
        """The whole document as JSON."""
        del request, openapi_schema
        return self._rendered


def complete_document(described: Json, schemas: Json) -> None:
    """Add to Litestar's document what it lacks; ``schemas`` become its components."""
    described["components"]["schemas"] = schemas
    for schema in schemas.values():
        for each in schema.get("properties", {}).values():
            _tell_default(each)
    for item in described["paths"].values():
        for operation in item.values():
            operation["summary"] = operation.pop("description")
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _given(parameter["schema"])
            for answer in operation["responses"].values():
                if EVENT_STREAM in answer.get("content", {}):
                    answer["content"][EVENT_STREAM]["schema"] = stream_schema()


def _tell_default(schema: Json) -> None:
    """Say a default in words: generators of TypeScript demand fields that have one."""
    if "default" in schema:
        default = msgspec.json.encode(schema.pop("default")).decode()
        described = schema.get("description", "")
        schema["description"] = f"{described} (default {default})".strip()


def _given(schema: Json) -> Json:
    """A parameter's schema where it is given: it may be left out, but it cannot be null."""
    schema = {key: value for key, value in schema.items() if (key, value) != ("default", None)}
    if "enum" in schema:
        schema["enum"] = [each for each in schema["enum"] if each is not None]
    kinds = [each for each in schema.pop("oneOf", ()) if each != {"type": "null"}]
    return schema | kinds[0] if kinds else schema


def _plain(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """JSON Schema's "$" means the very end already."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(schema, list):
        return [_plain(value) for value in schema]  # pyright: ignore[reportUnknownVariableType]
    return schema.replace(END, "$") if isinstance(schema, str) else schema


def _operation_id(handler: BaseRouteHandler, *_: object) -> str:
    return handler.handler_name


def document(version: str, schemas: StructSchemas) -> OpenAPIConfig:
    """Litestar's configuration, without pages that load scripts from other sites."""
    shown = Document(schemas)

    async def make(request: Request[Any, Any, Any]) -> None:  # Litestar would copy a method's self
        await shown.make(request)

    return OpenAPIConfig(
        title="Holdfast",
        version=version,
        description=DESCRIPTION,
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer"),
                "session": SecurityScheme(
                    type="apiKey", name="holdfast_session", security_scheme_in="cookie"
                ),
            }
        ),
        render_plugins=[shown],
        openapi_router=Router(
            "/schema",
            route_handlers=[],
            include_in_schema=False,
            dto=None,
            return_dto=None,
            before_request=make,
        ),
        use_handler_docstrings=True,
        operation_id_creator=_operation_id,
    )
