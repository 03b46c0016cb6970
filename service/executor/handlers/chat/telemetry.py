"""The attributes of a call's span, by OpenTelemetry's conventions for generative AI."""

import httpx

from service.executor.handlers.chat.answer import ModelAnswer
from service.executor.handlers.chat.request import ChatInput
from service.signals.tracing.spans import Attributes

PORTS = {"http": 80, "https": 443}
_PARAMS = (
    "frequency_penalty",
    "max_completion_tokens",
    "max_tokens",
    "presence_penalty",
    "seed",
    "temperature",
    "top_p",
)
_NAMES = {"max_completion_tokens": "max_tokens"}  # one attribute for both spellings


def request_attributes(url: httpx.URL, wish: ChatInput) -> Attributes:
    """What is asked of whom; no text of any message."""
    attributes: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",  # the protocol, not the server's maker
        "gen_ai.request.model": wish.model,
        "server.address": url.host,
        "server.port": url.port or PORTS[url.scheme],
    }
    for name in _PARAMS:
        value = wish.params.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            attributes[f"gen_ai.request.{_NAMES.get(name, name)}"] = value
    return attributes


def answer_attributes(answer: ModelAnswer) -> Attributes:
    """What is known of the answer, also of one that was cut; nothing before it began."""
    usage = answer.usage
    if usage is None:
        return {}
    attributes: Attributes = {
        "gen_ai.response.model": answer.model,
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
    }
    if answer.finish_reason is not None:
        attributes["gen_ai.response.finish_reasons"] = (answer.finish_reason,)
    if answer.response_id is not None:
        attributes["gen_ai.response.id"] = answer.response_id
    return attributes
