"""What is sent back: a Struct as JSON, or a problem; a long list is sent in slices.

Litestar's own response knows cookies, charsets and backgrounds; an answer here has none of them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec.structs import fields

from service.http.problems import PROBLEM_TYPE, PROBLEMS, Problem, RequestRefused, explained
from service.http.request import ClientGone

T = TypeVar("T")

JSON_TYPE = "application/json"
LONG = 200  # items; a longer list is encoded and sent in slices
SLICE_BYTES = 64 * 1024

_encoder = msgspec.json.Encoder()


class ApiResponse(Response[T]):
    """One complete answer. Bytes are sent as they are, anything else as JSON."""

    def __init__(  # pyright: ignore[reportMissingSuperCall]  # it would prepare what no answer has
        self,
        content: T,
        *,
        status_code: int | None = None,
        media_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        **_: object,
    ) -> None:
        """``status_code`` None means the handler's own; what else Litestar gives is left out."""
        self.content = content
        self.status_code = status_code
        self.media_type = media_type
        self.headers = dict(headers or {})

    def to_asgi_response(  # pyright: ignore[reportIncompatibleMethodOverride]  # any app will do
        self, *_: object, status_code: int | None = None, **__: object
    ) -> ASGIApp:
        """The answer itself; ``status_code`` is the handler's, for an answer without its own."""
        self.status_code = self.status_code or status_code or 200
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del scope, receive
        headers = [_content_type(self.media_type or JSON_TYPE)]
        for name, value in self.headers.items():
            headers.append((name.lower().encode(), value.encode()))
        start: Any = {"type": "http.response.start", "status": self.status_code, "headers": headers}
        content = self.content
        if (name := _long_list(content)) is not None:
            await send(start)
            await _send_in_slices(content, name, send)
            return
        body = content if isinstance(content, bytes) else _encoder.encode(content)
        headers.append((b"content-length", b"%d" % len(body)))
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": False})


@cache
def _content_type(media_type: str) -> tuple[bytes, bytes]:
    return b"content-type", str(media_type).encode()


def _long_list(content: object) -> str | None:
    """The name of the field that holds a long list, if there is one."""
    for name in _list_fields(type(content)):
        if len(getattr(content, name)) > LONG:
            return name
    return None


@cache
def _list_fields(kind: type[Any]) -> tuple[str, ...]:
    if not issubclass(kind, msgspec.Struct):
        return ()
    return tuple(each.name for each in fields(kind) if getattr(each.type, "__origin__", 0) is list)


async def _send_in_slices(content: Any, name: str, send: Send) -> None:  # noqa: ANN401 - a Struct
    """Encode and send a slice at a time; the loop serves others between two of them."""
    items: Sequence[object] = getattr(content, name)
    members = {
        each: value
        for each in content.__struct_fields__
        if each != name and (value := getattr(content, each)) is not msgspec.UNSET
    }
    head = _encoder.encode(members)[:-1] + b","
    buffer = bytearray(head if members else b"{")
    buffer += _encoder.encode(name) + b":["
    for n, item in enumerate(items):
        if n:
            buffer += b","
        _encoder.encode_into(item, buffer, -1)
        if len(buffer) >= SLICE_BYTES:
            await _send_part(send, bytes(buffer))
            buffer.clear()
            await asyncio.sleep(0)
    buffer += b"]}"
    await send({"type": "http.response.body", "body": bytes(buffer), "more_body": False})


async def _send_part(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})


def problem_answer(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """The application's exception handler: whatever goes wrong, as a problem."""
    del request
    if isinstance(error, ClientGone):
        return ApiResponse(b"", status_code=400)  # no client is left to read it
    told = explained(error)
    return ApiResponse(
        told.problem, status_code=told.problem.status, media_type=PROBLEM_TYPE, headers=told.headers
    )


async def send_refusal(refused: RequestRefused, send: Send) -> None:
    """Answer a request that no route was asked for. Raises RuntimeError if an answer has begun."""
    told = explained(refused)
    body = _encoder.encode(told.problem)
    headers = [(name.lower().encode(), value.encode()) for name, value in told.headers.items()]
    headers.append((b"content-type", PROBLEM_TYPE.encode()))
    headers.append((b"content-length", b"%d" % len(body)))
    status = told.problem.status
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


LOG_TROUBLE = ("log_unavailable", "log_full", "contended", "too_large")
READ_TROUBLE = ("behind", "database_unavailable")
OWNER_REFUSALS = ("not_found", "guard_reject", "not_allowed", *LOG_TROUBLE)


def refusals(*codes: str, guarded: bool = True) -> dict[int, ResponseSpec]:
    """How a route may refuse, for the document; ``guarded``: it asks for a token."""
    of_guarded = ("unauthorized", "too_many") if guarded else ()
    every = ["invalid_request", "forbidden", *codes, *of_guarded]
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(every):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {
        status: ResponseSpec(
            Problem,
            media_type=PROBLEM_TYPE,
            description="; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in found),
            generate_examples=False,
        )
        for status, found in sorted(by_status.items())
    }
