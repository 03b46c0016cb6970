"""What is sent back: bytes that are ready, with no step in between that could change them."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from litestar.types import Receive, Scope, Send

from service.core.results import Refused
from service.http.problems import PROBLEM_TYPE, explained

JSON_TYPE = "application/json"
SLICE = 200  # items encoded before the loop is given back

encode = msgspec.json.Encoder().encode


class Reply:
    """One complete answer; an ASGI application."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(
        self,
        body: bytes,
        status: int = HTTPStatus.OK,
        media_type: str = JSON_TYPE,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._body = body
        self._status = int(status)
        self._headers = [
            (b"content-type", media_type.encode()),
            (b"content-length", b"%d" % len(body)),
        ]
        if headers:
            self._headers += [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()]

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del scope, receive
        await send(
            {"type": "http.response.start", "status": self._status, "headers": self._headers}
        )
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


def show(what: object, status: int = HTTPStatus.OK) -> Reply:
    """A value as JSON."""
    return Reply(encode(what), status)


def tell(what: Refused | Exception) -> Reply:
    """What went wrong as a problem."""
    told = explained(what)
    return Reply(encode(told.problem), told.problem.status, PROBLEM_TYPE, told.headers)


async def show_with(what: object, name: str, items: Sequence[object]) -> Reply:
    """A value with one more field, a list that may be long: encoded in slices, not in one go."""
    parts: list[bytes] = []
    for start in range(0, len(items), SLICE):
        parts.append(encode(items[start : start + SLICE])[1:-1])
        await asyncio.sleep(0)
    whole = b"%b,%b:[%b]}" % (encode(what)[:-1], encode(name), b",".join(parts))
    return Reply(whole)
