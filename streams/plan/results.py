"""How an attempt ends, with the bounds of each part: the base of bodies and of handlers' results.

`Verdict` and `TokenUsage` are stored inside facts (`streams.plan.events`): changes are additive.
The fields of a result have the same names in bodies, commands and facts, and `carried` takes them
from one to the next.
"""

from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType
from msgspec.structs import replace

from streams.plan.limits import LARGEST, DelayS, TokenCount

T = TypeVar("T", bound=msgspec.Struct)

NOTHING = Raw(b"null")


def nothing() -> Raw:
    """JSON null, where a default must be made: schemas cannot show a Raw."""
    return NOTHING


ModelName = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
"""Asked of a model's name wherever one enters; facts of earlier versions may hold others."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A critic's judgement of its target; ``feedback`` is any JSON, handed to the next attempt."""

    pass_: bool = msgspec.field(name="pass")
    feedback: Raw = NOTHING


class TokenUsage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Language-model tokens that one attempt used, as its worker reported them.

    ``cached_tokens`` are part of the input and ``reasoning_tokens`` part of the output; both are
    unset where the model server did not report them. ``estimated`` is set, and true, when the
    numbers are counted from the texts, because the server reported none that can be right.
    """

    input_tokens: TokenCount = 0
    output_tokens: TokenCount = 0
    total_tokens: TokenCount = 0
    cached_tokens: TokenCount | UnsetType = UNSET
    reasoning_tokens: TokenCount | UnsetType = UNSET
    estimated: bool | UnsetType = UNSET


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt succeeded; ``output`` is any JSON, critics give a ``verdict``."""

    output: Raw = msgspec.field(default_factory=nothing)
    verdict: Verdict | None = None
    model_name: ModelName | None = None
    token_usage: TokenUsage | None = None


class Failing(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt failed; `retry_in_s` overrides the backoff."""

    error_type: str
    error_message: str = ""
    retryable: bool = True
    retry_in_s: DelayS | None = None
    model_name: ModelName | None = None
    token_usage: TokenUsage | None = None


def carried(kind: type[T], result: msgspec.Struct, **more: Any) -> T:  # noqa: ANN401
    """A ``kind`` with every field of its own that ``result`` has, and with ``more``."""
    fields = {name: getattr(result, name) for name in _shared(kind, type(result))}
    return kind(**(fields | more))


@cache
def _shared(kind: type[msgspec.Struct], other: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(name for name in kind.__struct_fields__ if name in other.__struct_fields__)


def added(usage: TokenUsage | None, more: TokenUsage | None) -> TokenUsage | None:
    """Both together; tokens that neither reports stay unset."""
    if usage is None or more is None:
        return usage or more
    return TokenUsage(
        input_tokens=min(usage.input_tokens + more.input_tokens, LARGEST),
        output_tokens=min(usage.output_tokens + more.output_tokens, LARGEST),
        total_tokens=min(usage.total_tokens + more.total_tokens, LARGEST),
        cached_tokens=_sum(usage.cached_tokens, more.cached_tokens),
        reasoning_tokens=_sum(usage.reasoning_tokens, more.reasoning_tokens),
        estimated=usage.estimated or more.estimated,
    )


def _sum(tokens: int | UnsetType, more: int | UnsetType) -> int | UnsetType:
    if tokens is UNSET:
        return more
    return tokens if more is UNSET else min(tokens + more, LARGEST)


def with_total(usage: TokenUsage | None) -> TokenUsage | None:
    """The usage with its total; what its worker left out is the sum of input and output."""
    if usage is None or usage.total_tokens:
        return usage
    return replace(usage, total_tokens=min(usage.input_tokens + usage.output_tokens, LARGEST))
