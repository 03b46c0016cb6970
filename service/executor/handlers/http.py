"""The kind ``http`` posts JSON to a URL, with headers that let the receiver do it just once.

Input: ``{"url": "https://…", "body": any JSON, "headers": {…}, "read_timeout_s": n}``; without a
body the task itself is posted. ``Idempotency-Key`` is the same for every attempt at the same work,
``Holdfast-Fencing-Token`` grows with every claim. Output: ``{"status", "body"}``.
"""

from typing import Annotated, Any

import httpx
import msgspec

from service.executor.attempts.failures import TaskFailed
from service.executor.handlers.contract import Result, TaskRun, handler, verdict_of
from service.executor.handlers.web import (
    checked_url,
    client,
    raise_for_status,
    read_bounded,
    told_apart,
)
from streams.plan.events import Verdict

RESPONSE_BYTES = 512 * 1024
# Set by Holdfast or by the connection: a submitter must not forge them.
RESERVED_HEADERS = frozenset(
    {"idempotency-key", "traceparent", "host", "content-length", "transfer-encoding", "connection"}
)

Header = Annotated[str, msgspec.Meta(max_length=8192, pattern=r"^[^\r\n\0]*$")]


class HttpInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to post, and what."""

    url: Annotated[str, msgspec.Meta(max_length=8192)]
    body: Any = msgspec.UNSET
    headers: Annotated[dict[str, Header], msgspec.Meta(max_length=50)] = {}
    read_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None


@handler("http")
async def post(task: TaskRun) -> Result:
    """Post and answer with what came back; raises `TaskFailed`."""
    wish = msgspec.convert(task.input, HttpInput)
    url = checked_url(wish.url)
    headers = _headers(task, wish)
    content = msgspec.json.encode(_envelope(task) if wish.body is msgspec.UNSET else wish.body)
    read_s = wish.read_timeout_s or task.timeout_s
    with told_apart(url, task.traceparent):
        async with (
            client(read_s) as http,
            http.stream("POST", url, content=content, headers=headers) as response,
        ):
            await raise_for_status(response)
            body, more = await read_bounded(response, RESPONSE_BYTES)
    if more:
        message = f"the answer is larger than {RESPONSE_BYTES} bytes"
        raise TaskFailed("bad_response", message, retryable=False)
    answer = _decoded(response, body)
    verdict = _verdict(answer) if task.type == "critic" else None
    return Result({"status": response.status_code, "body": answer}, verdict=verdict)


def _headers(task: TaskRun, wish: HttpInput) -> dict[str, str]:
    for name in wish.headers:
        if name.lower() in RESERVED_HEADERS or name.lower().startswith("holdfast-"):
            raise TaskFailed("bad_input", f"headers: {name!r} is reserved", retryable=False)
    ours = {
        "Content-Type": "application/json",
        "Idempotency-Key": task.idempotency_key,
        "Holdfast-Fencing-Token": str(task.fencing_token),
        "Holdfast-Plan": task.plan_id,
        "Holdfast-Task": task.task_id,
        "Holdfast-Attempt": str(task.attempt),
    }
    if task.traceparent:
        ours["traceparent"] = task.traceparent
    return wish.headers | ours


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
    """JSON where the receiver says so, else text."""
    if "json" not in response.headers.get("Content-Type", ""):
        return body.decode(errors="replace")
    try:
        return msgspec.json.decode(body) if body else None
    except msgspec.DecodeError as error:
        raise TaskFailed(
            "bad_response", f"the answer is not the JSON it claims: {error}"
        ) from error


def _verdict(answer: object) -> Verdict:
    verdict = verdict_of(answer)
    if verdict is None:
        message = 'a critic must be answered with {"pass": true or false, "feedback": …}'
        raise TaskFailed("bad_response", message)
    return verdict
