"""Why a handler failed: the exceptions that it may raise, and how any exception is reported.

The error types are those of `streams/plan/error_types.py`; the server records any other as
``other`` with its name in the message.
"""

import errno
import http.client
import json
import socket
import ssl
import subprocess
import urllib.error
from asyncio import CancelledError
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import cast

import httpx
import msgspec

from holdfast_worker.values import NotJson

MESSAGE_CHARACTERS = 2_000
PLACE_CHARACTERS = 100
LONGEST_RETRY_AFTER_S = 3600.0
LONGEST_CHAIN = 16
TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500
COME_AGAIN = frozenset({408, 425})  # a request that was too slow, or too early


class TaskFailed(Exception):
    """A handler states why its attempt failed; ``retryable`` False makes it the last.

    ``error_type`` is a word such as ``rate_limited`` (docs/reference/events.md); ``retry_in_s``
    (seconds) overrides the backoff. Model and tokens spent on a failure are recorded too.
    """

    def __init__(
        self,
        error_type: str,
        message: str,
        *,
        retryable: bool = True,
        retry_in_s: float | None = None,
        model_name: str | None = None,
        token_usage: object = None,
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.retryable = retryable
        self.retry_in_s = retry_in_s
        self.model_name = model_name
        self.token_usage = token_usage


class Retry(TaskFailed):
    """The attempt failed, and another one may succeed ``after_s`` seconds from now.

    Without ``after_s`` the server's backoff decides. It costs one of the task's ``max_retries``.
    """

    def __init__(
        self,
        message: str = "",
        *,
        after_s: float | None = None,
        error_type: str = "handler_error",
    ) -> None:
        super().__init__(error_type, message or error_type, retry_in_s=after_s)


class Fatal(TaskFailed):
    """The task failed for good: no further attempt is made."""

    def __init__(self, message: str, *, error_type: str = "handler_error") -> None:
        super().__init__(error_type, message, retryable=False)


class TaskCancelled(Exception):
    """Raised inside a handler whose attempt is to stop; do not catch it."""


class Unsupported(TaskFailed):
    """The server does not offer what the handler asked for; the message names what is missing."""

    def __init__(self, message: str) -> None:
        super().__init__("handler_error", message, retryable=False)


def classify(error: BaseException) -> tuple[str, bool]:
    """The error type of an exception, and whether another try may help.

    A group is its first exception; one that says nothing by itself (``raise Mine from error``) is
    what it was raised from.
    """
    for each in told_by(error):
        found = _by_content(each) or _by_kind(each) or _by_name(each)
        if found is not None:
            return found
    return "handler_error", True


def told_by(error: BaseException) -> Iterator[BaseException]:
    """The exception and those it was raised from, down to the first; of a group, its first."""
    each: BaseException | None = error
    for _ in range(LONGEST_CHAIN):  # a chain may be a circle
        if each is None:
            return
        yield each
        if isinstance(each, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", each)
            each = group.exceptions[0]
        else:
            each = each.__cause__


# The first row that fits counts: a time-out of a connection is no time-out of the work.
_KINDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((TaskCancelled, CancelledError), "cancelled"),
    ((httpx.ConnectTimeout, httpx.PoolTimeout), "connection_error"),
    ((TimeoutError, httpx.TimeoutException, subprocess.TimeoutExpired), "timeout"),
    ((httpx.TransportError, httpx.StreamError, ConnectionError), "connection_error"),
    ((socket.gaierror, ssl.SSLError, http.client.HTTPException), "connection_error"),
    ((MemoryError,), "out_of_memory"),
    ((subprocess.CalledProcessError,), "non_zero_exit"),
)
_NUMBERS: dict[int | None, str] = {
    errno.ENOMEM: "out_of_memory",
    errno.ENETDOWN: "connection_error",
    errno.ENETUNREACH: "connection_error",
    errno.EHOSTDOWN: "connection_error",
    errno.EHOSTUNREACH: "connection_error",
    errno.EADDRNOTAVAIL: "connection_error",
}


def _by_kind(error: BaseException) -> tuple[str, bool] | None:
    match error:
        case TaskFailed():
            return error.error_type, error.retryable
        case httpx.HTTPStatusError():
            return classify_status(error.response.status_code)
        case urllib.error.HTTPError():
            return classify_status(error.code)
        case urllib.error.URLError(reason=reason):
            told = _by_kind(reason) if isinstance(reason, BaseException) else None
            return told or ("connection_error", True)
        case _:
            pass
    for kinds, error_type in _KINDS:
        if isinstance(error, kinds):
            return error_type, True
    found = _NUMBERS.get(error.errno) if isinstance(error, OSError) else None
    return None if found is None else (found, True)


def _by_content(error: BaseException) -> tuple[str, bool] | None:
    """What was said was wrong, on the way in or out."""
    match error:
        case NotJson():
            return "bad_output", False
        case httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return "bad_input", False
        case msgspec.ValidationError():
            return "bad_input", False
        case msgspec.DecodeError() | json.JSONDecodeError() | httpx.DecodingError():
            return "bad_response", True
        case _:
            return None


# Clients that handlers may use and Holdfast does not: matched by name, never imported.
_NAMES: dict[tuple[str, str], str] = {
    ("requests", "ConnectionError"): "connection_error",
    ("requests", "Timeout"): "timeout",
    ("requests", "ChunkedEncodingError"): "connection_error",
    ("urllib3", "ConnectTimeoutError"): "connection_error",
    ("urllib3", "TimeoutError"): "timeout",
    ("urllib3", "HTTPError"): "connection_error",
    ("aiohttp", "ClientConnectionError"): "connection_error",
}


def _by_name(error: BaseException) -> tuple[str, bool] | None:
    """By the package and name of its class or a parent; by the status of an answer it carries."""
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    if isinstance(status, int):
        return classify_status(status)
    for kind in type(error).__mro__:
        if found := _NAMES.get((kind.__module__.partition(".")[0], kind.__name__)):
            return found, True
    return None


def classify_status(status: int) -> tuple[str, bool]:
    """The error type of an HTTP answer that is no success; 4xx will not get better by repeating."""
    if status == TOO_MANY_REQUESTS:
        return "rate_limited", True
    return "http_error", status >= SERVER_ERROR or status in COME_AGAIN


def retry_in_s(error: BaseException) -> float | None:
    """How long the server that answered asks to wait, for an exception that carries the answer."""
    for each in told_by(error):
        if isinstance(each, TaskFailed):
            return each.retry_in_s
        response = getattr(each, "response", None)  # no "or": a bad answer may be false
        headers = getattr(each if response is None else response, "headers", None)
        if isinstance(headers, Mapping | Message):
            return asked_wait_s(cast("Mapping[str, str]", headers))
    return None


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait, bounded; None when it asks for nothing.

    ``retry-after-ms`` (OpenAI and Azure) is finer than ``Retry-After`` and counts first.
    """
    said_ms, said = headers.get("retry-after-ms"), headers.get("Retry-After")
    wait_ms = retry_after_s(said_ms, unit_s=0.001) if isinstance(said_ms, str) else None
    return retry_after_s(said if isinstance(said, str) else None) if wait_ms is None else wait_ms


def retry_after_s(value: str | None, unit_s: float = 1) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, bounded; None when it asks for nothing."""
    if value is None:
        return None
    try:
        wait_s = float(value) * unit_s
    except ValueError:
        try:
            wait_s = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    # The comparison is written so that NaN asks for nothing.
    return min(max(wait_s, 0.0), LONGEST_RETRY_AFTER_S) if wait_s == wait_s else None  # noqa: PLR0124


def text_of(value: object, most: int = MESSAGE_CHARACTERS) -> str:
    r"""``value`` as text that can be stored, at most ``most`` characters; never raises.

    Half a surrogate pair, as in a file name that is not UTF-8, is written as ``\\udce9``.
    """
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - __str__ of user code
        text = f"{type(value).__name__} (str() of it raised {type(error).__name__})"
    return text[:most].encode("utf-8", "backslashreplace").decode()[:most]


def describe(error: BaseException) -> str:
    """The message that is reported: what and where, bounded, never empty."""
    if isinstance(error, TaskFailed):
        return text_of(error) or type(error).__name__
    text = text_of(error)
    if isinstance(error, TaskCancelled):
        return text or type(error).__name__
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    trace = error.__traceback__
    if trace is None:
        return said[:MESSAGE_CHARACTERS]
    while trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_code.co_filename.rsplit("/", 1)[-1]
    where = text_of(f" ({name}:{trace.tb_lineno})", PLACE_CHARACTERS)
    return said[: MESSAGE_CHARACTERS - len(where)] + where
