"""What the data of server-sent events looks like, for the OpenAPI document."""

from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

from msgspec import Struct, defstruct
from msgspec.json import schema_components
from msgspec.structs import fields

from streams.plan.events import TYPE_NAMES

EVENT_STREAM = "text/event-stream"
REF = "#/components/schemas/{name}"

DESCRIPTION = """Blocks of `id`, `event` and `data`. `data` is JSON: of a fact (`event` is its type)
a `StreamEvent`; of `hello` `{epoch, head, first, heartbeat_s}`, sent first; of `caught_up`
`{sequence}`, once all that was in the log at the start has been sent; of `gap` `{requested, first,
head, reason}`, when the cursor cannot be honoured (`expired`, `ahead_of_log`, `unreadable`),
or events after it are missing because their plans were forgotten (`forgotten`); of `closed`
`{reason}`, before the server ends the stream."""

Json = dict[str, Any]


def stream_schema() -> Json:
    """The schema of an event stream's text."""
    return {
        "type": "string",
        "contentMediaType": EVENT_STREAM,
        "contentSchema": {"$ref": REF.format(name="StreamEvent")},
    }


def event_components() -> Json:
    """`StreamEvent`, and the schema of each type's ``data``."""
    shapes = [_shape(kind) for kind in TYPE_NAMES]
    references, components = schema_components(shapes, ref_template=REF)
    for component in components.values():
        component.pop("required", None)  # what is a default may be left out
    mapping: Json = {}
    for type_name, shape, data in zip(TYPE_NAMES.values(), shapes, references, strict=True):
        name = f"{shape.__name__}Event"
        components[name] = _event(type_name, data)
        mapping[type_name] = REF.format(name=name)
    components["StreamEvent"] = {
        "oneOf": [{"$ref": each} for each in mapping.values()],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    return components


@cache
def _shape(kind: type[Any]) -> type[Any]:
    """The Struct with neither tag nor defaults: msgspec describes no default that is a ``Raw``."""
    found = [(each.encode_name, _shape_of(each.type)) for each in fields(kind)]
    return defstruct(kind.__name__, found, kw_only=True, namespace={"__doc__": kind.__doc__})


def _shape_of(annotation: Any) -> Any:  # noqa: ANN401 - any annotation
    """The annotation with the shapes of the Structs in it."""
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return _shape(annotation)
    arguments: tuple[Any, ...] = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return cast("Any", Annotated)[(_shape_of(arguments[0]), *arguments[1:])]
    if isinstance(annotation, UnionType):
        return cast("Any", Union)[tuple(map(_shape_of, arguments))]
    if get_origin(annotation) is tuple:
        return cast("Any", tuple)[tuple(map(_shape_of, arguments))]
    return cast("Any", annotation)


def _event(type_name: str, data: Json) -> Json:
    properties: Json = {
        "sequence": {"type": "integer"},
        "at": {"type": "string", "format": "date-time"},
        "plan_id": {"type": "string"},
        "task_id": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "type": {"const": type_name},
        "trace_id": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "data": data,
    }
    return {"type": "object", "properties": properties, "required": list(properties)}
