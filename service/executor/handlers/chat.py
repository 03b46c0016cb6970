"""The kind ``chat`` asks a language model at any OpenAI-compatible endpoint and streams its words.

Input: ``{"base_url", "model", "messages", "params": {…}, "api_key_env"}``. The key itself never
stands in the log: ``api_key_env`` names the environment variable that holds it, and only names that
end in ``API_KEY`` are read. Tokens are shown as progress ``{"offset", "text"}``. Output:
``{"content", "finish_reason", "model"}``. What a critic sent back as feedback is added to the
messages; a critic is also shown the outputs it depends on and asked for a JSON verdict.
"""

import os
from collections.abc import AsyncIterator
from time import monotonic
from typing import Annotated, Any

import httpx
import msgspec

from service.executor.attempts.failures import TaskFailed
from service.executor.handlers.contract import Result, TaskRun, handler, verdict_of
from service.executor.handlers.web import checked_url, client, raise_for_status, told_apart
from streams.plan.events import TokenUsage, Verdict

SHOW_EVERY_S = 0.25  # a little more than the heartbeats' own bound, so that nothing is coalesced
CONTENT_CHARACTERS = 512 * 1024
LINE_BYTES = 1024 * 1024
DONE = "[DONE]"
FIXED_PARAMS = frozenset({"model", "messages", "stream", "stream_options", "n"})

VERDICT_REQUEST = (
    'Judge the work above. Answer with one JSON object and nothing else: {"pass": true or false, '
    '"feedback": "what must change, empty if nothing"}'
)


class ChatInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to ask what. ``with_dependencies`` None: only critics are shown them."""

    base_url: Annotated[str, msgspec.Meta(max_length=8192)]
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    messages: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(min_length=1, max_length=10_000)]
    params: dict[str, Any] = {}
    api_key_env: Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9_]*API_KEY$")] | None = None
    read_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 60
    with_dependencies: bool | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class _Chunk(msgspec.Struct, frozen=True):
    """One event of the stream, as far as it is used."""

    model: str | None = None
    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None
    error: Any = None


@handler("chat")
async def chat(task: TaskRun) -> Result:
    """Ask and answer with the model's words; raises `TaskFailed`."""
    wish = msgspec.convert(task.input, ChatInput)
    url = checked_url(f"{wish.base_url.rstrip('/')}/chat/completions")
    reply, asked = _Reply(task, wish.model), _request(task, wish)
    with told_apart(url, task.traceparent):
        async with (
            client(wish.read_timeout_s) as http,
            http.stream("POST", url, json=asked, headers=_headers(task, wish)) as response,
        ):
            await raise_for_status(response)
            async for data in _events(response):
                if data == DONE:
                    break
                reply.take(data)
    return reply.result()


def _headers(task: TaskRun, wish: ChatInput) -> dict[str, str]:
    headers = {"Accept": "text/event-stream"}
    if task.traceparent:
        headers["traceparent"] = task.traceparent
    if wish.api_key_env is not None:
        key = os.environ.get(wish.api_key_env)
        if not key:
            message = f"api_key_env: the variable {wish.api_key_env} is not set where this runs"
            raise TaskFailed("bad_input", message, retryable=False)
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _request(task: TaskRun, wish: ChatInput) -> dict[str, Any]:
    if clash := FIXED_PARAMS & wish.params.keys():
        message = f"params: {', '.join(sorted(clash))} cannot be set there"
        raise TaskFailed("bad_input", message, retryable=False)
    return {
        **wish.params,
        "model": wish.model,
        "messages": [*wish.messages, *_added_messages(task, wish)],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _added_messages(task: TaskRun, wish: ChatInput) -> list[dict[str, str]]:
    """What the task's place in its plan adds to the conversation."""
    critic = task.type == "critic"
    said: list[str] = []
    if task.dependencies and (critic if wish.with_dependencies is None else wish.with_dependencies):
        said.append(
            f"The outputs of the tasks before this one, as JSON:\n{_text(task.dependencies)}"
        )
    if task.feedback is not None:
        said.append(f"A reviewer sent your last answer back:\n{_text(task.feedback)}")
    if critic:
        said.append(VERDICT_REQUEST)
    return [{"role": "user", "content": text} for text in said]


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


async def _events(response: httpx.Response) -> AsyncIterator[str]:
    """The data of each server-sent event; comments and other fields are passed over."""
    data: list[str] = []
    async for line in _lines(response):
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []
    if data:
        yield "\n".join(data)


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Lines of at most `LINE_BYTES`."""
    pending = b""
    async for part in response.aiter_bytes():
        *lines, pending = (pending + part).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r").decode(errors="replace")
        if len(pending) > LINE_BYTES:
            raise TaskFailed("bad_response", f"a line of the stream exceeds {LINE_BYTES} bytes")
    if pending:
        yield pending.rstrip(b"\r").decode(errors="replace")


class _Reply:
    """The model's words as they come in."""

    def __init__(self, task: TaskRun, model: str) -> None:
        self._task = task
        self._model = model
        self._parts: list[str] = []
        self._length = 0
        self._shown = 0
        self._unshown: list[str] = []
        self._shown_at = 0.0
        self._finish_reason: str | None = None
        self._usage: TokenUsage | None = None

    def take(self, data: str) -> None:
        """Take in one chunk; raises `TaskFailed` when it is malformed or reports an error."""
        try:
            chunk = msgspec.json.decode(data, type=_Chunk)
        except msgspec.DecodeError as error:
            raise self._failed("bad_response", f"a malformed chunk: {error}") from error
        if chunk.error is not None:
            raise self._failed("http_error", f"the endpoint reported: {_text(chunk.error)[:500]}")
        self._model = chunk.model or self._model
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        for choice in chunk.choices[:1]:
            self._finish_reason = choice.finish_reason or self._finish_reason
            self._add(choice.delta.content or "")

    def result(self) -> Result:
        """What the model said; raises `TaskFailed` when the stream was cut or is no verdict."""
        if self._finish_reason is None:
            raise self._failed("connection_error", "the stream ended before the answer did")
        content = "".join(self._parts)
        self._show()
        return Result(
            {"content": content, "finish_reason": self._finish_reason, "model": self._model},
            verdict=self._verdict(content) if self._task.type == "critic" else None,
            model_name=self._model,
            token_usage=self._usage,
        )

    def _add(self, text: str) -> None:
        self._length += len(text)
        if self._length > CONTENT_CHARACTERS:
            raise self._failed("bad_response", f"more than {CONTENT_CHARACTERS} characters")
        self._parts.append(text)
        self._unshown.append(text)
        if monotonic() - self._shown_at >= SHOW_EVERY_S:
            self._show()

    def _show(self) -> None:
        """Show what has come since the last time; an ``offset`` lets a watcher see a hole."""
        if text := "".join(self._unshown):
            self._task.progress({"offset": self._shown, "text": text[:10_000]})
            self._shown += len(text)
            self._shown_at = monotonic()
            self._unshown = []

    def _verdict(self, content: str) -> Verdict:
        """The first JSON object in the answer, which models like to wrap in prose or fences."""
        start, end = content.find("{"), content.rfind("}")
        try:
            verdict = verdict_of(msgspec.json.decode(content[start : end + 1]))
        except msgspec.DecodeError:
            verdict = None
        if verdict is None:
            raise self._failed("bad_response", f"no verdict in the answer: {content[:200]!r}")
        return verdict

    def _failed(self, error_type: str, message: str) -> TaskFailed:
        """Tokens are paid for whether or not the answer is of use."""
        return TaskFailed(error_type, message, model_name=self._model, token_usage=self._usage)


def _usage(said: _Usage) -> TokenUsage:
    total = said.total_tokens or said.prompt_tokens + said.completion_tokens
    return TokenUsage(
        input_tokens=said.prompt_tokens, output_tokens=said.completion_tokens, total_tokens=total
    )
