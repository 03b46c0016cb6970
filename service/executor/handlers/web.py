"""What the handlers that speak HTTP share: a client, its refusals, and when to come back."""

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

import httpx

from service.executor.attempts.failures import (
    MESSAGE_CHARACTERS,
    TaskFailed,
    classify_status,
    retry_after_s,
)
from service.signals.tracing.spans import calling

CONNECT_S = 10.0
QUOTED_BYTES = 1_000


@cache
def _certificates() -> ssl.SSLContext:
    """Loading them takes some 20 ms, so once."""
    return httpx.create_ssl_context()


def client(read_s: float) -> httpx.AsyncClient:
    """A client for one attempt; ``read_s`` bounds each silence, the task's time-out the whole."""
    timeout = httpx.Timeout(read_s, connect=min(CONNECT_S, read_s))
    return httpx.AsyncClient(verify=_certificates(), timeout=timeout, follow_redirects=False)


def checked_url(url: str) -> httpx.URL:
    """``url`` parsed; raises `TaskFailed` unless it is http or https with a host."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise TaskFailed("bad_input", f"url: {error}", retryable=False) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise TaskFailed("bad_input", "url: must be http://… or https://…", retryable=False)
    return parsed


@contextmanager
def told_apart(url: httpx.URL, traceparent: str) -> Generator[None]:
    """Give the client's exceptions a message that says where; their class says what.

    The call is written down as a span of the attempt that ``traceparent`` names.
    """
    where = f"{url.scheme}://{url.netloc.decode().rpartition('@')[2]}"
    with calling(traceparent, where), _told_apart(where):
        yield


@contextmanager
def _told_apart(where: str) -> Generator[None]:
    try:
        yield
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise TaskFailed("connection_error", f"{where} did not accept in time") from error
    except httpx.TimeoutException as error:
        raise TaskFailed("timeout", f"{where} did not answer in time") from error
    except (httpx.TransportError, httpx.StreamError) as error:
        said = str(error) or type(error).__name__
        raise TaskFailed("connection_error", f"{where}: {said}"[:MESSAGE_CHARACTERS]) from error


async def read_bounded(response: httpx.Response, most: int) -> tuple[bytes, bool]:
    """The body, at most ``most`` bytes of it, and whether there was more."""
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > most:
            return bytes(body[:most]), True
    return bytes(body), False


async def raise_for_status(response: httpx.Response) -> None:
    """Raise `TaskFailed` unless the answer is a success, honouring ``Retry-After``."""
    if response.is_success:
        return
    error_type, retryable = classify_status(response.status_code)
    body, _ = await read_bounded(response, QUOTED_BYTES)
    said = body.decode(errors="replace").strip()
    message = f"answered {response.status_code} {response.reason_phrase}: {said}".rstrip(": ")
    wait_s = retry_after_s(response.headers.get("Retry-After")) if retryable else None
    raise TaskFailed(error_type, message, retryable=retryable, retry_in_s=wait_s)
