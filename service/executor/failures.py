"""Why an attempt failed: the closed set of error types, and the exception that belongs to each.

The set is closed because it becomes a metric's label (SIGNALS.md: at most 20 values). Workers
outside may report any type over HTTP; the executor's own attempts end in one of these.
"""

from typing import Literal, get_args

import httpx
import msgspec

from streams.plan.events import TokenUsage

ErrorType = Literal[
    "timeout",
    "connection_error",
    "rate_limited",
    "http_error",
    "bad_response",
    "bad_input",
    "bad_output",
    "too_large",
    "non_zero_exit",
    "command_not_allowed",
    "cancelled",
    "lease_lost",
    "lease_expired",
    "out_of_memory",
    "process_died",
    "rejected",
    "handler_error",
    "other",
]
ERROR_TYPES: tuple[ErrorType, ...] = get_args(ErrorType)

MESSAGE_CHARACTERS = 2_000
TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500


class TaskFailed(Exception):
    """A handler says why its attempt failed; ``retryable`` False makes it the last.

    ``error_type`` is one of `ERROR_TYPES` (anything else is reported as ``other``);
    ``retry_in_s`` overrides the backoff. Model and tokens spent on a failure are recorded too.
    """

    def __init__(
        self,
        error_type: str,
        message: str,
        *,
        retryable: bool = True,
        retry_in_s: float | None = None,
        model_name: str | None = None,
        token_usage: TokenUsage | None = None,
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.retryable = retryable
        self.retry_in_s = retry_in_s
        self.model_name = model_name
        self.token_usage = token_usage


class TaskCancelled(Exception):
    """Raised inside a handler whose attempt is to stop; let it pass."""


def known(error_type: str) -> ErrorType:
    """``error_type`` if it is in the closed set, else ``other``."""
    return error_type if error_type in ERROR_TYPES else "other"


def classify(error: BaseException) -> tuple[ErrorType, bool]:
    """The error type of an exception, and whether another try may help."""
    match error:
        case TaskFailed():
            return known(error.error_type), error.retryable
        case TaskCancelled():
            return "cancelled", True
        case httpx.HTTPStatusError():
            return classify_status(error.response.status_code)
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return "connection_error", True
        case TimeoutError() | httpx.TimeoutException():
            return "timeout", True
        case ConnectionError() | httpx.TransportError():
            return "connection_error", True
        case httpx.InvalidURL():
            return "bad_input", False
        case MemoryError():
            return "out_of_memory", True
        case msgspec.ValidationError():
            return "bad_input", False
        case _:
            return "handler_error", True


def classify_status(status: int) -> tuple[ErrorType, bool]:
    """The error type of an HTTP answer that is no success; 4xx will not get better by repeating."""
    if status == TOO_MANY_REQUESTS:
        return "rate_limited", True
    return "http_error", status >= SERVER_ERROR


def describe(error: BaseException) -> str:
    """The message that is reported: what and where, bounded, never empty."""
    if isinstance(error, TaskFailed | TaskCancelled):
        return str(error)[:MESSAGE_CHARACTERS] or type(error).__name__
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    trace = error.__traceback__
    if trace is None:
        return said[:MESSAGE_CHARACTERS]
    while trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_code.co_filename.rsplit("/", 1)[-1]
    return f"{said[: MESSAGE_CHARACTERS - 100]} ({name}:{trace.tb_lineno})"
