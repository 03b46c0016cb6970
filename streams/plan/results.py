"""What may be said of an attempt that ended, and the bounds of each part.

`Verdict` and `TokenUsage` are stored inside facts (`streams.plan.events`): changes are additive.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType
from msgspec.structs import replace

from streams.plan.limits import LARGEST, Tokens

NOTHING = Raw(b"null")

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

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    total_tokens: Tokens = 0
    cached_tokens: Tokens | UnsetType = UNSET
    reasoning_tokens: Tokens | UnsetType = UNSET
    estimated: bool | UnsetType = UNSET


def with_total(usage: TokenUsage | None) -> TokenUsage | None:
    """The usage with its total; what its worker left out is the sum of input and output."""
    if usage is None or usage.total_tokens:
        return usage
    return replace(usage, total_tokens=min(usage.input_tokens + usage.output_tokens, LARGEST))
