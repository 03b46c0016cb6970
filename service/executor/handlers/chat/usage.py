"""What an answer cost in tokens: as the server reports it where that can be right, else estimated.

Servers report null, negative numbers, floats, texts and numbers of 400 digits. A number that cannot
be right is replaced by an estimate from the length of the texts, and the whole is marked as one.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from msgspec import UNSET, UnsetType

from holdfast_worker.task import TaskRun
from service.executor.handlers.chat.request import ChatInput
from streams.plan.events import TokenUsage

MOST_TOKENS = 10**9  # of one attempt; what is reported beyond is no count of tokens
CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English text
_DIGITS = 10


def usage_of(said: object, estimated: TokenUsage) -> TokenUsage:
    """The usage that a server reported, with ``estimated`` for what is missing or impossible."""
    fields = _object(said)
    used_input = tokens(fields.get("prompt_tokens"))
    used_output = tokens(fields.get("completion_tokens"))
    whole = used_input is not None and used_output is not None
    used_input = estimated.input_tokens if used_input is None else used_input
    used_output = estimated.output_tokens if used_output is None else used_output
    total = tokens(fields.get("total_tokens")) if whole else None
    inputs = _object(fields.get("prompt_tokens_details"))
    outputs = _object(fields.get("completion_tokens_details"))
    cached = inputs.get("cached_tokens", fields.get("prompt_cache_hit_tokens"))
    return TokenUsage(
        input_tokens=used_input,
        output_tokens=used_output,
        total_tokens=max(total or 0, used_input + used_output),
        cached_tokens=_part(cached, used_input),
        reasoning_tokens=_part(outputs.get("reasoning_tokens"), used_output),
        estimated=UNSET if whole else True,
    )


def tokens(value: object) -> int | None:
    """A count of tokens; whole floats and digits in a text are taken, the impossible is None."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MOST_TOKENS else None


def estimate(wish: ChatInput, task: TaskRun, characters: int) -> TokenUsage:
    """What the messages and an answer of so many ``characters`` cost about."""
    asked = sum(map(_characters, wish.messages))
    asked += len(msgspec.json.encode(wish.params.get("tools", "")))
    if task.dependencies and (task.type == "critic" or wish.with_dependencies):
        asked += len(msgspec.json.encode(task.dependencies))
    used_input, used_output = _tokens_of(asked), _tokens_of(characters)
    return TokenUsage(
        input_tokens=used_input,
        output_tokens=used_output,
        total_tokens=used_input + used_output,
        estimated=True,
    )


def _characters(message: Mapping[str, Any]) -> int:
    """The length of a message's text; pictures and sounds are not counted."""
    content = message.get("content")
    if isinstance(content, str):
        return len(content)
    if not isinstance(content, list):
        return 0
    texts = (_object(part).get("text") for part in cast("list[object]", content))
    return sum(len(text) for text in texts if isinstance(text, str))


def _tokens_of(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


def _part(value: object, whole: int) -> int | UnsetType:
    part = tokens(value)
    return UNSET if part is None or part > whole else part


def _object(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}
