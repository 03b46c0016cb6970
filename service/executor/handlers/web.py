"""What the handlers that speak HTTP share: a client, bounded bodies, and the names of failures.

The client connects to what `Reach` allows, follows no redirects, uses no proxy of the environment,
asks for answers without content coding and decodes none: a coded body can be a million times larger
than what arrives.
"""

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

import httpcore
import httpx

from holdfast_worker.failures import MESSAGE_CHARACTERS, TaskFailed, asked_wait_s, classify_status
from service.executor.handlers.reach import GuardedBackend, Reach
from service.runtime.masking import KNOWN
from service.signals.tracing.spans import Attributes, calling

CONNECT_S = 10.0
ERROR_BYTES = 16 * 1024  # of an error's body are read
QUOTED_CHARACTERS = 1_000  # of an error's body stand in the message
URL_CHARACTERS = 8192
_UNCODED = ("", "identity")


@cache
def _certificates() -> ssl.SSLContext:
    """Loading them takes some 20 ms, so once."""
    return httpx.create_ssl_context()


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's own, over connections that are opened within ``reach`` alone."""

    def __init__(self, reach: Reach) -> None:
        super().__init__(verify=_certificates(), trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_certificates(), max_connections=1, network_backend=GuardedBackend(reach)
        )


def client(read_s: float, reach: Reach) -> httpx.AsyncClient:
    """A client for one attempt; ``read_s`` bounds each silence, the task's time-out the whole."""
    return httpx.AsyncClient(
        transport=_Transport(reach),
        timeout=httpx.Timeout(read_s, connect=min(CONNECT_S, read_s)),
        follow_redirects=False,
        trust_env=False,
        headers={"Accept-Encoding": "identity"},
    )


def url_complaint(url: str) -> str | None:
    """Why ``url`` cannot be called; None: it can. Cheap enough for thousands at submit."""
    scheme, found, rest = url.partition("://")
    host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    if not found or scheme.lower() not in ("http", "https") or host.startswith((":", "#")):
        return "must be http://… or https://… with a host"
    if not host or not url.isprintable() or " " in url:
        return "must be http://… or https://… with a host, without spaces and control characters"
    return None


def checked_url(url: str) -> httpx.URL:
    """``url`` parsed; raises `TaskFailed` unless it is http or https with a host."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise TaskFailed("bad_input", f"url: {error}", retryable=False) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise TaskFailed("bad_input", "url: must be http://… or https://…", retryable=False)
    return parsed


def origin(url: httpx.URL) -> str:
    """Scheme, host and port, as the client itself reads them."""
    host = url.raw_host.decode()
    bracketed = f"[{host}]" if ":" in host else host
    return f"{url.scheme}://{bracketed}:{url.port or (443 if url.scheme == 'https' else 80)}"


@contextmanager
def outgoing_call(url: httpx.URL, traceparent: str, name: str = "POST") -> Generator[Attributes]:
    """Give the client's exceptions an error type and a message that says where.

    The call is recorded as a span of the attempt that ``traceparent`` names; yields the
    attributes of that span.
    """
    where = f"{url.scheme}://{url.netloc.decode().rpartition('@')[2]}"
    with calling(traceparent, where, name) as attributes, _named_failures(where):
        yield attributes


@contextmanager
def _named_failures(where: str) -> Generator[None]:
    try:
        yield
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise TaskFailed("connection_error", f"{where} did not accept in time") from error
    except httpx.TimeoutException as error:
        raise TaskFailed("timeout", f"{where} did not answer in time") from error
    except httpx.LocalProtocolError as error:
        raise TaskFailed("bad_input", f"{where}: {error}", retryable=False) from error
    except (httpx.TransportError, httpx.StreamError) as error:
        said = str(error) or type(error).__name__
        raise TaskFailed("connection_error", f"{where}: {said}"[:MESSAGE_CHARACTERS]) from error


def coding_of(response: httpx.Response) -> str | None:
    """The content coding that the other side used although none was asked for."""
    coding = response.headers.get("Content-Encoding", "").strip()
    return None if coding.lower() in _UNCODED else coding[:100]


def refuse_coded(response: httpx.Response) -> None:
    """Raise `TaskFailed` when the body is compressed: it is not decoded, so it cannot be read."""
    coding = coding_of(response)
    if coding is not None:
        message = (
            f"the answer has the content coding {coding!r}, although `Accept-Encoding: identity` "
            "was sent; coded answers are not decoded"
        )
        raise TaskFailed("bad_response", message, retryable=False)


async def read_bounded(response: httpx.Response, most: int) -> tuple[bytes, bool]:
    """The body as it arrives, at most ``most`` bytes of it, and whether there was more."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > most:
            return bytes(body[:most]), True
    return bytes(body), False


async def error_body(response: httpx.Response) -> bytes:
    """The beginning of an error's body; nothing of a coded one."""
    if coding_of(response) is not None:
        return b""
    body, _ = await read_bounded(response, ERROR_BYTES)
    return body


def refused(response: httpx.Response, body: bytes, *, final: bool = False) -> TaskFailed:
    """What an answer that is no success is reported as; honours the wait that it asks for.

    ``final``: the caller knows that another try cannot help.
    """
    error_type, retryable = classify_status(response.status_code)
    retryable = retryable and not final
    said = KNOWN.text(body.decode(errors="replace").strip())[:QUOTED_CHARACTERS]
    message = f"answered {response.status_code} {response.reason_phrase}: {said}".rstrip(": ")
    if response.is_redirect:
        message += " (redirects are not followed)"
    wait_s = asked_wait_s(response.headers) if retryable else None
    return TaskFailed(error_type, message, retryable=retryable, retry_in_s=wait_s)
