"""What is asked of a model: the input of a ``chat`` task, and the request that it becomes."""

import re
from typing import Annotated, Any

import httpx
import msgspec

from holdfast_worker.task import TaskRun
from service.executor.handlers.chat.schema import format_complaint
from service.executor.handlers.secrets import SecretRef
from service.executor.handlers.web import URL_CHARACTERS, url_complaint

FIXED_PARAMS = frozenset({"model", "messages", "stream", "stream_options", "n"})
DEFAULT_ACCEPT = ("stop", "tool_calls")

VERDICT_REQUEST = (
    'Judge the work above. Answer with one JSON object and nothing else: {"pass": true or false, '
    '"feedback": "what must change, empty if nothing"}'
)

_key_variable = re.compile(r"[A-Z0-9_]*API_KEY").fullmatch

OutcomeName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class ChatInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which model to ask, and what.

    ``endpoint`` is one of the settings. ``base_url``, ``api_key_env`` and ``api_key`` are for
    installations that allow any URL (`executor.chat.any_url`).
    ``accept``: the outcomes that complete the task, which are the finish reasons of the API and
    ``refusal``; any other fails it. ``with_dependencies`` None: only critics are shown them.
    """

    endpoint: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    base_url: Annotated[str, msgspec.Meta(max_length=URL_CHARACTERS)] | None = None
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    messages: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(min_length=1, max_length=10_000)]
    params: dict[str, Any] = {}
    api_key_env: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    api_key: SecretRef | None = None
    read_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 60
    with_dependencies: bool | None = None
    accept: Annotated[tuple[OutcomeName, ...], msgspec.Meta(min_length=1, max_length=16)] = (
        DEFAULT_ACCEPT
    )

    def __post_init__(self) -> None:
        """Raise ValueError naming the field that does not fit."""
        if complaint := self._place_complaint():
            raise ValueError(complaint)
        if clash := FIXED_PARAMS & self.params.keys():
            raise ValueError(f"params: {', '.join(sorted(clash))} cannot be set there")
        if wrong := [n for n, each in enumerate(self.messages) if not _has_role(each)]:
            raise ValueError(f"messages[{wrong[0]}]: must have a role, such as user")
        if complaint := format_complaint(self.params.get("response_format")):
            raise ValueError(f"params.response_format: {complaint}")

    def _place_complaint(self) -> str | None:
        """Which of the fields that say where to ask does not fit."""
        if (self.endpoint is None) == (self.base_url is None):
            return "endpoint: name one of the settings, or base_url instead, and not both"
        if self.base_url is None:
            keyed = self.api_key_env is not None or self.api_key is not None
            return "api_key: an endpoint of the settings has its own key" if keyed else None
        if complaint := url_complaint(self.base_url):
            return f"base_url: {complaint}"
        if self.api_key_env is None:
            return None
        if self.api_key is not None:
            return "api_key: give api_key or api_key_env, not both"
        if not _key_variable(self.api_key_env):
            return "api_key_env: must be the name of an environment variable that ends in API_KEY"
        return None


def _has_role(message: dict[str, Any]) -> bool:
    return isinstance(message.get("role"), str)


class ChatQuestion(msgspec.Struct, frozen=True):
    """One request to an endpoint."""

    url: httpx.URL
    headers: dict[str, str]
    body: bytes


def question_of(task: TaskRun, wish: ChatInput, url: httpx.URL, key: str | None) -> ChatQuestion:
    """The request for a task; raises `TaskFailed`."""
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    headers.update(task.trace_headers)
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    asked = {
        **wish.params,
        "model": wish.model,
        "messages": [*wish.messages, *_added_messages(task, wish)],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return ChatQuestion(url, headers, msgspec.json.encode(asked))


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
