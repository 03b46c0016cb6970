"""The request as handlers see it: whose it is, which trace it belongs to, and its whole body."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from litestar import Request
from litestar.datastructures import State
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.types import Scope

from service.core.core import Core
from service.http.deadlines import Deadline
from service.http.instance_parts import parts_of
from service.http.problems import RequestRefused
from service.http.strict_json import read
from service.http.tracing import trace_of
from service.ops.operations import Operations
from service.principals.principal import Principal
from streams.log import Origin

LARGE_BODY_BYTES = 16 * 1024  # what is longer is read in a thread: a megabyte takes 100 ms

CLIENT = "holdfast.client"
"""The extension of the ASGI scope that is a `ClientWatch`."""

GONE = RequestRefused("invalid_request", "the client closed the connection")  # read by no client
TOKEN_ENDED = RequestRefused(
    "unauthorized", "the token or session has ended while the claim waited"
)


class ClientWatch(Protocol):
    """The client of a request that is being answered."""

    def is_gone(self) -> bool:
        """Whether it has closed the connection."""
        ...

    def when_gone(self, act: Callable[[], object] | None) -> None:
        """Call ``act`` when it does; None: call nothing any more."""
        ...


class ClientGone(Exception):
    """The client hung up before its request was complete."""


class ApiRequest(Request[Any, Principal | None, State]):
    """A request; ``auth`` is its principal, None where no token is needed.

    ``large`` is what a large body holds, once `body` has been awaited.
    """

    large: Any = None

    @property
    def core(self) -> Core:
        """What can be asked of Holdfast."""
        return parts_of(self.scope).core

    @property
    def operations(self) -> Operations:
        """The operator's view of the instance."""
        return parts_of(self.scope).operations

    def origin(self, actor: str | None = None, *, begins: bool = False) -> Origin:
        """Who acts: ``actor``, or the principal, or "operator"; and which principal asks.

        A request that brought no trace joins that of the plan it is about, unless it ``begins`` it.
        """
        trace = trace_of(self.scope)
        principal: Principal | None = self.scope["auth"]
        name = principal.name if principal is not None else ""
        return Origin(
            actor=actor or name or "operator",
            principal=name,
            instance=self.core.instance_id,
            traceparent=trace.traceparent if trace.own or begins else "",
            tracestate=trace.tracestate,
        )

    def when_ended(self, end: Callable[[], object]) -> Callable[[], object]:
        """Call ``end`` once when the token or session behind the request ends.

        Answers a function that cancels this.
        """
        principal: Principal | None = self.scope["auth"]
        tokens = parts_of(self.scope).access.tokens
        if principal is None or tokens is None:
            return lambda: None
        return tokens.when_ended(principal, end)

    @property
    def deadline(self) -> Deadline:
        """Until when it is answered."""
        scope: Any = self.scope
        return scope["deadline"]

    @property
    def client_or_none(self) -> ClientWatch | None:
        """What watches the client; None where the server cannot."""
        scope: Any = self.scope
        extensions: dict[str, Any] = scope.get("extensions") or {}
        return extensions.get(CLIENT)

    def is_gone(self) -> bool:
        """Whether the client has closed the connection; False where the server cannot tell."""
        client = self.client_or_none
        return client is not None and client.is_gone()

    @contextmanager
    def ended_with_client(self) -> Generator[None]:
        """Cancel the request's task when the client closes the connection or its token ends."""
        forget = self.when_ended(partial(self.deadline.end, TOKEN_ENDED))
        client = self.client_or_none
        if client is not None:
            client.when_gone(partial(self.deadline.end, GONE))
        try:
            yield
        finally:
            forget()
            if client is not None:
                client.when_gone(None)

    async def body(self) -> bytes:
        """The whole body, at most as long as the route accepts; a large one is read off the loop.

        Litestar's own reading is a generator behind two caches. Raises ClientGone, RequestRefused.
        """
        handler: Any = self.route_handler
        most: int = handler.resolve_request_max_body_size()
        announced = header(self.scope, b"content-length")
        if announced.isdigit() and int(announced[:20]) > most:
            raise RequestEntityTooLarge
        size, more = 0, True
        parts: list[bytes] = []
        while more:
            message: Any = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > most:
                raise RequestEntityTooLarge
        body = b"".join(parts)
        if size > LARGE_BODY_BYTES and handler.parsed_data_field is not None:
            self.large = await asyncio.to_thread(read, self, body)
        return body


def is_head(scope: Scope) -> bool:
    """Whether the request is a HEAD, which handlers see as a GET."""
    return "head" in scope


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a request's header, empty when it has none; ``name`` in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return value
    return b""
