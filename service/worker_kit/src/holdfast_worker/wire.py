"""Requests to a Holdfast server, repeated while repeating can help."""

import asyncio
import math
import os
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import cache, lru_cache
from time import monotonic
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import httpx
import msgspec

from holdfast_worker.counters import Counters
from holdfast_worker.failures import retry_after_s
from holdfast_worker.limits import Limits

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_S = 5.0
REPEATED = frozenset({429, 502, 503, 504})
NOT_FOUND = 404
ROUTE_MISSING = frozenset({"Not Found", "Method Not Allowed"})
_JSON = (b"Content-Type", b"application/json")


class HoldfastError(Exception):
    """Base of what a `Client` and a `Worker` raise about the server."""


class Refused(HoldfastError):
    """The server refused a request: ``status`` of HTTP, ``code`` and ``detail`` of its problem."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.status = status
        self.code = code
        self.detail = detail


class Unreachable(HoldfastError):
    """No useful answer came before the time was up; the message has the last trouble."""


class Answer(msgspec.Struct, frozen=True):
    """An answer that is final: a success, whose content is ``value``, or a refusal.

    ``repeated``: an earlier try, whose answer was lost, may have been carried out.
    """

    status: int
    body: bytes
    value: Any = None
    repeated: bool = False

    @property
    def ok(self) -> bool:
        """Whether the request was accepted."""
        return httpx.codes.is_success(self.status)

    @property
    def refusal(self) -> Refused:
        """What the problem document says; usable whatever a proxy answered instead."""
        try:
            problem = msgspec.json.decode(self.body, type=_Problem)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            problem = _Problem(detail=self.body[:200].decode(errors="replace"))
        return Refused(self.status, problem.code or f"http_{self.status}", problem.detail)

    @property
    def route_is_missing(self) -> bool:
        """Whether this server does not know the path at all, as one of an older version."""
        if self.status not in (NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED):
            return False
        return self.status != NOT_FOUND or self.refusal.detail in ROUTE_MISSING


class _Problem(msgspec.Struct):
    code: str = ""
    detail: str = ""


class Wire:
    """One server and the connections to it; use it on one event loop.

    ``url`` and ``token`` default to HOLDFAST_URL and HOLDFAST_TOKEN, and to no token. Raises
    ValueError for a URL that is none.
    """

    def __init__(
        self,
        url: str | None,
        token: str | None,
        limits: Limits,
        counters: Counters | None = None,
    ) -> None:
        base = _base(url or os.environ.get("HOLDFAST_URL") or DEFAULT_URL)
        self.url = str(base).rstrip("/")
        held = token or os.environ.get("HOLDFAST_TOKEN")
        self._limits = limits
        self._counters = counters or Counters()
        self.has_answered = False  # whether the server, or something before it, ever did
        self.accepted_at = 0.0  # when a request was accepted last (monotonic)
        self._connections = _connections_to(base)
        self.http = httpx.AsyncClient(
            base_url=base,
            headers={"Authorization": f"Bearer {held}"} if held else {},
            transport=self._connections,
        )
        self._headers = _headers_of(self.http, base)

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def once(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        kind: Any = Any,  # noqa: ANN401 - a type
        within_s: float | None = None,
    ) -> "Answer | Trouble":
        """One try; `Trouble` when the same request may be sent again.

        So is a success that is no ``kind``: something between here and the server answered it.
        """
        content = b"" if body is None else msgspec.json.encode(body)
        try:
            got = await self._send(method, path, content, within_s or self._limits.request_s)
        except httpx.TransportError as error:
            return Trouble(str(error) or type(error).__name__)
        self.has_answered = True
        if got.status_code in REPEATED:
            said = Answer(got.status_code, got.content).refusal
            return Trouble(
                f"{got.status_code} {said}", retry_after_s(got.headers.get("Retry-After"))
            )
        if not got.is_success:
            return Answer(got.status_code, got.content)
        try:
            answer = Answer(got.status_code, got.content, _decoder(kind).decode(got.content))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return Trouble(f"the answer is not one of Holdfast: {error}")
        self.accepted_at = monotonic()
        return answer

    async def _send(
        self, method: str, path: str, content: bytes, within_s: float
    ) -> httpx.Response:
        """The answer with its content, past what httpx's client does for cookies and redirects."""
        headers = self._headers
        if method != "GET":
            headers = [*headers, _JSON, (b"Content-Length", b"%d" % len(content))]
        request = httpx.Request(
            method,
            _url(self.url + path),
            headers=headers,
            stream=httpx.ByteStream(content),
            extensions={"timeout": _times_out(within_s)},
        )
        async with aclosing(await self._connections.handle_async_request(request)) as got:
            await got.aread()
        return got

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        kind: Any = Any,  # noqa: ANN401 - a type
        until: Callable[[], float] = lambda: math.inf,
        within_s: float | None = None,
    ) -> Answer:
        """Repeat the request until there is a final answer or ``until()`` (monotonic) has passed.

        Raises `Unreachable` then. Pauses as `Retry-After` asks, with jitter, and grow otherwise.
        """
        tries = 0
        while True:
            answer = await self.once(method, path, body, kind=kind, within_s=within_s)
            if isinstance(answer, Answer):
                return msgspec.structs.replace(answer, repeated=True) if tries else answer
            pause_s = self.pause_s(tries, answer)
            if monotonic() + pause_s >= until():
                raise Unreachable(f"{self.url} did not answer in time: {answer.what}")
            tries += 1
            self._counters.retried += 1
            await asyncio.sleep(pause_s)

    def pause_s(self, tries: int, trouble: "Trouble | None" = None) -> float:
        """How long to wait before the next try, never in step with other clients."""
        limits = self._limits
        if trouble is not None and trouble.retry_after_s is not None:
            asked_s = min(trouble.retry_after_s, limits.longest_pause_s)
            return asked_s + random.uniform(0, limits.first_pause_s)  # noqa: S311 - spreads load
        longest_s = min(limits.first_pause_s * 2 ** min(tries, 16), limits.longest_pause_s)
        return random.uniform(longest_s / 2, longest_s)  # noqa: S311


def _base(url: str) -> httpx.URL:
    """Where the server is. Raises ValueError for what no request can be sent to."""
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no URL: {error}") from None
    if base.scheme not in ("http", "https") or not base.host:
        raise ValueError(f"{url!r} is no URL of a server, such as {DEFAULT_URL}")
    return base


def _connections_to(url: httpx.URL) -> httpx.AsyncHTTPTransport:
    """Connections that are kept open, through the proxy that the environment names for ``url``."""
    proxies = {} if proxy_bypass(url.host) else getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    speaks_tls = url.scheme == "https" or (proxy or "").lower().startswith("https:")
    return httpx.AsyncHTTPTransport(
        verify=speaks_tls,  # elsewhere nothing is verified, and reading certificates takes 20 ms
        proxy=proxy,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
    )


def _headers_of(client: httpx.AsyncClient, url: httpx.URL) -> list[tuple[bytes, bytes]]:
    """What each request has, the name and password in ``url`` among it."""
    request = client.build_request("GET", url)
    if url.userinfo:
        request = next(httpx.BasicAuth(url.username, url.password).auth_flow(request))
    return request.headers.raw


@lru_cache(maxsize=64)  # parsing takes a tenth of a request, and most go to three paths
def _url(url: str) -> httpx.URL:
    return httpx.URL(url)


@lru_cache(maxsize=64)
def _times_out(within_s: float) -> dict[str, float | None]:
    return httpx.Timeout(within_s, connect=CONNECT_S).as_dict()


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 - a type
    return msgspec.json.Decoder(kind)


class Trouble(msgspec.Struct, frozen=True):
    """Why a try brought no final answer, and how long the server asks to wait."""

    what: str
    retry_after_s: float | None = None


def task_path(plan_id: str, task_id: str, *more: str) -> str:
    """The path of a task, or of what can be done with it."""
    return "/".join(["/v1/plans", quote(plan_id, safe=""), "tasks", quote(task_id, safe=""), *more])


def query(path: str, wanted: Mapping[str, Any]) -> str:
    """A path with those parameters that are not None."""
    given = {name: value for name, value in wanted.items() if value is not None}
    return f"{path}?{httpx.QueryParams(given)}" if given else path
