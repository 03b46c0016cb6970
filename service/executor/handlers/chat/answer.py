"""The model's answer as it comes in: words, tool calls, how it finished, and what it cost."""

import msgspec
from msgspec import Raw

from holdfast_worker.failures import TaskFailed
from holdfast_worker.progress import Channel
from holdfast_worker.task import TaskRun
from service.executor.handlers.chat.chunks import (
    NULL,
    ToolCallPart,
    Words,
    read_chunk,
    text_of,
    value_of,
)
from service.executor.handlers.chat.errors import reported
from service.executor.handlers.chat.request import ChatInput
from service.executor.handlers.chat.usage import estimate, usage_of
from streams.plan.events import TokenUsage

TEXT_CHARACTERS = 512 * 1024  # of each channel, tool calls counted with the text
TOOL_CALLS = 128
MODEL_CHARACTERS = 200


class ToolCall(msgspec.Struct):
    """A function that the model wants called; ``arguments`` is its JSON text."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class ModelAnswer:
    """Takes in one chunk after the other; everything that grows is bounded."""

    def __init__(self, task: TaskRun, wish: ChatInput) -> None:
        self._task = task
        self._wish = wish
        self._parts: dict[Channel, list[str]] = {}
        self._lengths: dict[Channel, int] = {}
        self._call_at: dict[int, ToolCall] = {}
        self._usage = NULL
        self.began = False
        self.model = wish.model[:MODEL_CHARACTERS]
        self.response_id: str | None = None
        self.finish_reason: str | None = None
        self.tool_calls: list[ToolCall] = []

    @property
    def finished(self) -> bool:
        """Whether the model has said its last word."""
        return self.finish_reason is not None

    @property
    def usage(self) -> TokenUsage | None:
        """What the answer cost so far; None before it began."""
        if not self.began:
            return None
        lengths = sum(self._lengths.values())
        return usage_of(value_of(self._usage), estimate(self._wish, self._task, lengths))

    def text(self, channel: Channel) -> str:
        """What has come on ``channel``."""
        return "".join(self._parts.get(channel, ()))

    def take(self, data: str) -> None:
        """Take in one event; raises `TaskFailed` when it is malformed or reports an error."""
        chunk = read_chunk(data)
        if (error := value_of(chunk.error)) is not None:
            raise reported(error)
        self.model = _name(text_of(chunk.model)) or self.model
        self.response_id = _name(text_of(chunk.id)) or self.response_id
        if value_of(chunk.usage) is not None:
            self._usage = chunk.usage
        for choice in (chunk.choices or ())[:1]:
            for words in (choice.delta, choice.message):
                if words is not None:
                    self._take(words)
            whole = "stop" if choice.message is not None else None  # a document is never cut
            self.finish_reason = choice.finish_reason or self.finish_reason or whole

    def _take(self, words: Words) -> None:
        reasoning = text_of(words.reasoning_content) or text_of(words.reasoning)
        self._show("reasoning", reasoning)
        self._show("text", words.content or "")
        self._show("refusal", words.refusal or "")
        for part in words.tool_calls or ():
            self._call(part)

    def _show(self, channel: Channel, text: str) -> None:
        if text:
            self._grow(channel, len(text))
            self._parts.setdefault(channel, []).append(text)
            self._task.progress(text=text, channel=channel)

    def _grow(self, channel: Channel, characters: int) -> None:
        length = self._lengths.get(channel, 0) + characters
        if length > TEXT_CHARACTERS:
            message = f"the answer has more than {TEXT_CHARACTERS} characters of {channel}"
            raise TaskFailed("bad_response", message, retryable=False)
        self._lengths[channel] = length

    def _call(self, part: ToolCallPart) -> None:
        """A call is known by its index; servers that send none begin one with each new id."""
        index = part.index if part.index is not None else max(len(self.tool_calls) - 1, 0)
        call = self._call_at.get(index)
        if call is None or (part.id and call.id and part.id != call.id):
            call = ToolCall()
            self._call_at[index if part.index is not None else len(self.tool_calls)] = call
            self.tool_calls.append(call)
            if len(self.tool_calls) > TOOL_CALLS:
                message = f"the answer has more than {TOOL_CALLS} tool calls"
                raise TaskFailed("bad_response", message, retryable=False)
        call.id = call.id or part.id or ""
        if part.function is not None:
            call.name = call.name or part.function.name or ""
            more = _arguments(part.function.arguments)
            self._grow("text", len(more))
            call.arguments += more


def _arguments(part: Raw) -> str:
    """A piece of the arguments' text; from a server that sends the object, its text."""
    value = value_of(part)
    if value is None:
        return ""
    return value if isinstance(value, str) else bytes(part).decode(errors="replace")


def _name(said: str) -> str | None:
    """A name that can be recorded; None for what is empty, too long or not printable."""
    return said if 1 <= len(said) <= MODEL_CHARACTERS and said.isprintable() else None
