"""The OpenAPI document, written from the table of routes and the Structs that do the checking.

Litestar assembles and serves it; what it says about bodies, parameters and answers comes from
msgspec, which also enforces it, so the document cannot promise what the service does not keep.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, OpenAPI, Operation, Schema

from service.http.problems import PROBLEM_TYPE, PROBLEMS, Problem
from service.http.reply import JSON_TYPE
from service.http.routes import Route
from service.http.schemas import END, Id

DESCRIPTION = "Runs the tasks of AI-agent plans under leases; every fact is one message in a log."
REF = "#/components/schemas/{name}"
TEXT_TYPES = (
    "text/plain; version=1.0.0; charset=utf-8",
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
)

Json = dict[str, Any]


@dataclass
class Verbatim(Schema):
    """A schema that msgspec has written: it is shown as it is."""

    content: Json | None = None

    def to_schema(self) -> Json:
        """The content."""
        return self.content or {}


def _plain(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """JSON Schema's "$" means the very end already."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(schema, list):
        return [_plain(value) for value in schema]  # pyright: ignore[reportUnknownVariableType]
    return schema.replace(END, "$") if isinstance(schema, str) else schema


class Schemas:
    """The schemas of every type that a route asks or shows."""

    def __init__(self, routes: Iterable[Route[Any]]) -> None:
        self._kinds: list[Any] = [Problem, Id]
        for row in routes:
            self._kinds += [row.asks, row.shows]
        written, components = msgspec.json.schema_components(self._kinds, ref_template=REF)
        self._written: list[Json] = [_plain(schema) for schema in written]
        self.components: Json = _plain(components)

    def of(self, kind: Any) -> Json:  # noqa: ANN401 - any type
        """The schema of a type: usually a reference into the components."""
        return self._written[self._kinds.index(kind)]

    def fields(self, kind: Any) -> tuple[Mapping[str, Json], set[str]]:  # noqa: ANN401
        """A Struct's fields with their schemas, and which of them are required."""
        name = self.of(kind)["$ref"].rpartition("/")[2]
        component = self.components[name]
        return component["properties"], set(component.get("required", ()))


def operation_of(row: Route[Any], schemas: Schemas) -> type[Operation]:
    """How the route stands in the document."""

    @dataclass
    class Described(Operation):
        def to_schema(self) -> Json:
            described: Json = {
                "tags": [_tag(row.path)],
                "summary": self.summary,
                "operationId": self.operation_id,
                "parameters": _parameters(row, schemas),
                "responses": _responses(row, schemas),
            }
            if row.reads_body:
                described["requestBody"] = {
                    "required": not row.optional_body,
                    "content": {JSON_TYPE: {"schema": schemas.of(row.asks)}},
                }
            return described

    return Described


def _tag(path: str) -> str:
    parts = path.split("/")
    return parts[2] if parts[1] == "v1" else "operations"


def _parameters(row: Route[Any], schemas: Schemas) -> list[Json]:
    found = [
        {
            "name": part[1:-1],
            "in": "path",
            "required": True,
            "schema": schemas.of(Id) if part.endswith("_id}") else {"type": "string"},
        }
        for part in row.path.split("/")
        if part.startswith("{")
    ]
    if not row.reads_body:
        fields, required = schemas.fields(row.asks)
        found += [
            {"name": name, "in": "query", "required": name in required, "schema": _not_null(schema)}
            for name, schema in fields.items()
        ]
    found += [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": meaning,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        }
        for name, meaning in row.headers.items()
    ]
    return found


def _not_null(schema: Json) -> Json:
    """A query parameter is left out; it cannot be null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if not kinds:
        enum = schema.get("enum")
        if enum and None in enum:
            return {
                **_without(schema, "default"),
                "enum": [each for each in enum if each is not None],
            }
        return schema
    (kind,) = kinds
    return {**_without(schema, "anyOf", "default"), **kind}


def _without(schema: Json, *keys: str) -> Json:
    return {key: value for key, value in schema.items() if key not in keys}


def _responses(row: Route[Any], schemas: Schemas) -> Json:
    content = {JSON_TYPE: {"schema": schemas.of(row.shows)}}
    if row.shows is str:
        content = {media: {"schema": {"type": "string"}} for media in TEXT_TYPES}
    answers: Json = {
        str(status): {"description": meaning, "headers": _NAMES, "content": content}
        for status, meaning in row.status.items()
    }
    problem = {PROBLEM_TYPE: {"schema": schemas.of(Problem)}}
    for status, codes in _refusals(row).items():
        meaning = "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in codes)
        answer = answers.setdefault(
            str(status), {"description": meaning, "headers": _NAMES, "content": {}}
        )
        answer["content"] = {**answer["content"], **problem}
    return answers


_NAMES = {
    "X-Request-Id": {"schema": {"type": "string"}},
    "X-Trace-Id": {"schema": {"type": "string"}},
}


def _refusals(row: Route[Any]) -> dict[int, list[str]]:
    """The codes with which a route may refuse, by status."""
    codes = ["invalid_request", *row.refuses]
    if row.role is not None:
        codes += ["unauthorized", "forbidden"]
    if "{" in row.path:
        codes.append("not_found")
    if row.reads_body:
        codes.append("too_large")
    found: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        found.setdefault(PROBLEMS[code].status, []).append(code)
    return dict(sorted(found.items()))


def document(version: str) -> OpenAPIConfig:
    """Litestar's configuration: served at /schema/openapi.json, without pages that need a CDN."""
    return OpenAPIConfig(
        title="Holdfast",
        version=version,
        description=DESCRIPTION,
        components=Components(schemas={}),
        render_plugins=[JsonRenderPlugin()],
        path="/schema",
        use_handler_docstrings=True,
    )


def complete(described: OpenAPI, schemas: Schemas) -> None:
    """Add the Structs' schemas, which Litestar forgets as soon as it finds one of its own."""
    known = described.components.schemas if described.components else None
    if known is None:
        raise TypeError("Litestar's document has no place for schemas")
    known.update({name: Verbatim(content=each) for name, each in schemas.components.items()})
