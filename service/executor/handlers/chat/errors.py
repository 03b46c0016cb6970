"""Errors that endpoints report, and their messages without the key."""

import re
from collections.abc import Mapping
from typing import cast

import httpx
import msgspec

from holdfast_worker.failures import TaskFailed, classify_status
from service.executor.handlers.chat.chunks import value_of
from service.executor.handlers.web import refused
from service.runtime.masking import KNOWN
from streams.plan.events import TokenUsage

# Another try does not bring money; these come with status 429 like requests that are too quick.
NO_MORE_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
TOO_QUICK = frozenset({"rate_limit_exceeded", "rate_limit_error", "429"})
WRONG_REQUEST = frozenset(
    {"invalid_request_error", "invalid_api_key", "authentication_error", "context_length_exceeded"}
)
QUOTED_CHARACTERS = 500


def refusal_of(response: httpx.Response, body: bytes) -> TaskFailed:
    """What an answer that is no success is reported as."""
    said = value_of(body)
    error = cast("Mapping[str, object]", said).get("error") if isinstance(said, dict) else None
    return refused(response, body, final=bool(NO_MORE_QUOTA & _codes(error)))


def reported(error: object) -> TaskFailed:
    """What an error inside of an answer is reported as; its status was that of a success."""
    codes = _codes(error)
    text = error if isinstance(error, str) else msgspec.json.encode(error).decode()
    message = f"the endpoint reported: {KNOWN.text(text)[:QUOTED_CHARACTERS]}"
    if codes & NO_MORE_QUOTA:
        return TaskFailed("rate_limited", message, retryable=False)
    if codes & TOO_QUICK:
        return TaskFailed("rate_limited", message)
    if codes & WRONG_REQUEST:
        return TaskFailed("http_error", message, retryable=False)
    for code in map(_status, codes):
        if code is not None:
            error_type, retryable = classify_status(code)
            return TaskFailed(error_type, message, retryable=retryable)
    return TaskFailed("http_error", message)


def charged(error: TaskFailed, model_name: str, usage: TokenUsage | None) -> TaskFailed:
    """The failure with what it cost."""
    return TaskFailed(
        error.error_type,
        str(error),
        retryable=error.retryable,
        retry_in_s=error.retry_in_s,
        model_name=model_name,
        token_usage=usage,
    )


_status_code = re.compile(r"[45][0-9]{2}").fullmatch


def _status(code: str) -> int | None:
    """The HTTP status that gateways put in the place of a code."""
    return int(code) if _status_code(code) else None


def _codes(error: object) -> frozenset[str]:
    """The names by which the error goes: its ``code`` and its ``type``."""
    if not isinstance(error, dict):
        return frozenset()
    fields = cast("Mapping[str, object]", error)
    return frozenset(
        str(code)[:64]
        for code in (fields.get("code"), fields.get("type"))
        if isinstance(code, str | int)
    )
