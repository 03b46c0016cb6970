"""The kind ``http`` posts JSON to a URL, with headers that let the receiver do it just once.

Input: ``{"url": "https://…", "body": any JSON, "headers": {…}, "read_timeout_s": n}``; without a
body the task itself is posted. A header may be a secret by name, ``{"secret": "openai", "prefix":
"Bearer "}``, which is sent only to the origins that the settings name for it. ``Idempotency-Key``
is the same for every attempt at the same work, ``Holdfast-Fencing-Token`` grows with every claim.
Output: ``{"status", "body"}``.
"""

import re
from typing import Annotated, Any

import httpx
import msgspec

from holdfast_worker.failures import TaskFailed
from holdfast_worker.handler import AnyHandler, Handler
from holdfast_worker.task import Result, TaskRun
from service.executor.handlers.reach import Reach
from service.executor.handlers.secrets import SecretRef, Secrets
from service.executor.handlers.verdicts import verdict_of
from service.executor.handlers.web import (
    URL_CHARACTERS,
    checked_url,
    client,
    error_body,
    origin,
    outgoing_call,
    read_bounded,
    refuse_coded,
    refused,
    url_complaint,
)
from streams.plan.events import Verdict

RESPONSE_BYTES = 512 * 1024
# Set by Holdfast or by the connection. Compared with "_" as "-", because CGI and WSGI servers
# cannot tell `Idempotency_Key` from `Idempotency-Key`.
RESERVED_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
RESERVED_PREFIXES = ("holdfast-", "proxy-")

_header_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}").fullmatch

HeaderValue = Annotated[str, msgspec.Meta(max_length=8192)]


class HttpInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to post, and what."""

    url: Annotated[str, msgspec.Meta(max_length=URL_CHARACTERS)]
    body: Any = msgspec.UNSET
    headers: Annotated[dict[str, HeaderValue | SecretRef], msgspec.Meta(max_length=50)] = {}
    read_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError naming the field that does not fit."""
        if complaint := url_complaint(self.url):
            raise ValueError(f"url: {complaint}")
        for name, value in self.headers.items():
            if complaint := _header_complaint(name, value):
                raise ValueError(f"headers: {name[:128]!r} {complaint}")


def _header_complaint(name: str, value: str | SecretRef) -> str | None:
    if not _header_name(name):
        return "is not the name of a header"
    plain = name.lower().replace("_", "-")
    if plain in RESERVED_HEADERS or plain.startswith(RESERVED_PREFIXES):
        return "is set by Holdfast or by the connection"
    if isinstance(value, SecretRef):
        value = value.prefix
    if not value.isascii() or not all(" " <= each != "\x7f" or each == "\t" for each in value):
        return "has a value with line breaks, control characters or letters beyond ASCII"
    return None


def http_handler(reach: Reach, secrets: Secrets) -> AnyHandler:
    """The handler that connects within ``reach`` and may send ``secrets``."""

    async def http(task: TaskRun) -> Result:
        return await post(task, reach, secrets)

    return Handler("http", http, input_type=HttpInput)


async def post(task: TaskRun, reach: Reach, secrets: Secrets) -> Result:
    """Post and answer with what came back; raises `TaskFailed`."""
    wish = msgspec.convert(task.input, HttpInput)
    url = checked_url(wish.url)
    headers = _headers(task, wish, url, secrets)
    content = msgspec.json.encode(_envelope(task) if wish.body is msgspec.UNSET else wish.body)
    read_s = wish.read_timeout_s or task.timeout_s
    with outgoing_call(url, task.traceparent):
        async with (
            client(read_s, reach) as http,
            http.stream("POST", url, content=content, headers=headers) as response,
        ):
            if not response.is_success:
                raise refused(response, await error_body(response))
            refuse_coded(response)
            body, more = await read_bounded(response, RESPONSE_BYTES)
    if more:
        message = f"the answer is larger than {RESPONSE_BYTES} bytes"
        raise TaskFailed("bad_response", message, retryable=False)
    answer = _decoded(response, body)
    verdict = _verdict(answer) if task.type == "critic" else None
    return Result({"status": response.status_code, "body": answer}, verdict=verdict)


def _headers(task: TaskRun, wish: HttpInput, url: httpx.URL, secrets: Secrets) -> httpx.Headers:
    """The task's own headers, and those that nothing in the input can set."""
    headers = httpx.Headers({"Content-Type": "application/json"})
    for name, value in wish.headers.items():
        secret = isinstance(value, SecretRef)
        headers[name] = secrets.resolved(value, origin(url)) if secret else value
    headers.update(
        {
            "Idempotency-Key": task.idempotency_key,
            "Holdfast-Fencing-Token": str(task.fencing_token),
            "Holdfast-Plan": task.plan_id,
            "Holdfast-Task": task.task_id,
            "Holdfast-Attempt": str(task.attempt),
        }
    )
    headers.update(task.trace_headers)
    return headers


def _envelope(task: TaskRun) -> dict[str, Any]:
    return {
        "plan_id": task.plan_id,
        "task_id": task.task_id,
        "attempt": task.attempt,
        "context": task.context,
        "dependencies": task.dependencies,
        "feedback": task.feedback,
    }


def _decoded(response: httpx.Response, body: bytes) -> object:
    """JSON if the answer's content type is JSON, else text."""
    if "json" not in response.headers.get("Content-Type", ""):
        return body.decode(errors="replace")
    try:
        return msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TaskFailed(
            "bad_response", f"the answer is not the JSON it claims: {error}"
        ) from error


def _verdict(answer: object) -> Verdict:
    verdict = verdict_of(answer)
    if verdict is None:
        message = 'a critic must be answered with {"pass": true or false, "feedback": …}'
        raise TaskFailed("bad_response", message)
    return verdict
