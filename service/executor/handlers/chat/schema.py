"""Checks answers against the JSON schema that the request's ``response_format`` demands.

Schema and answer come from outside, and a small schema can take years over a small answer. So the
check runs in a process of its own with a time limit, fetches nothing, and knows regular expressions
only that take linear time.
"""

import asyncio
import sys
from typing import Any, cast

import jsonschema_rs
import msgspec

from holdfast_worker.failures import TaskFailed
from service.executor.handlers.chat import schema_check
from streams.json_values import UNREADABLE

SCHEMA_BYTES = 64 * 1024
QUOTED_CHARACTERS = 500


def format_complaint(response_format: object) -> str | None:
    """Why answers cannot be checked against it; None: they can, or nothing is asked for."""
    if response_format is None:
        return None
    if not isinstance(response_format, dict) or not isinstance(
        kind := cast("dict[str, Any]", response_format).get("type"), str
    ):
        return "must be an object with a type, such as json_object or json_schema"
    if kind != "json_schema":
        return None
    schema = _schema_of(cast("dict[str, Any]", response_format))
    if schema is None:
        return "json_schema.schema: must be an object"
    if len(msgspec.json.encode(schema)) > SCHEMA_BYTES:
        return f"json_schema.schema: larger than {SCHEMA_BYTES} bytes"
    try:
        jsonschema_rs.meta.validate(schema)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        return f"json_schema.schema: {_first_line(error)}"
    return None


async def check_format(content: str, response_format: object, check_s: float) -> None:
    """Raise `TaskFailed` unless ``content`` is what ``response_format`` demands."""
    if not isinstance(response_format, dict):
        return
    wanted = cast("dict[str, Any]", response_format)
    if wanted.get("type") not in ("json_object", "json_schema"):
        return
    try:
        value = msgspec.json.decode(content)
    except UNREADABLE as error:
        raise _bad(f"the answer is no JSON: {error}") from error
    if wanted["type"] == "json_object" and not isinstance(value, dict):
        raise _bad("the answer is JSON, but no object")
    if wanted["type"] == "json_schema":
        await _check(_schema_of(wanted), content, check_s)


async def _check(schema: object, content: str, check_s: float) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        schema_check.__file__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
    )
    try:
        async with asyncio.timeout(check_s):
            said, _ = await process.communicate(msgspec.json.encode([schema, content]))
    except TimeoutError as error:
        raise _bad(f"the answer could not be checked within {check_s:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise _bad("the answer could not be checked")
    if said:
        raise _bad(f"the answer does not fit the schema: {said.decode(errors='replace')}")


def _schema_of(response_format: dict[str, Any]) -> dict[str, Any] | None:
    """The schema; None when there is none that is an object."""
    wanted = response_format.get("json_schema")
    schema = cast("dict[str, Any]", wanted).get("schema") if isinstance(wanted, dict) else None
    return cast("dict[str, Any]", schema) if isinstance(schema, dict) else None


def _bad(message: str) -> TaskFailed:
    """Worth another try: a model may do better the next time."""
    return TaskFailed("bad_response", f"response_format: {message}"[:QUOTED_CHARACTERS])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:QUOTED_CHARACTERS]
