"""A critic's verdict as a handler may state it."""

from collections.abc import Mapping
from typing import cast

import msgspec

from streams.json_values import UNREADABLE, encoded
from streams.plan.results import Verdict


def verdict_of(said: object) -> Verdict | None:
    """The verdict in ``{"pass": bool, "feedback": any JSON}``; None when it is no such thing.

    Raises `streams.json_values.NotJson` when the feedback is none.
    """
    match said:
        case Verdict():
            passed, feedback = said.pass_, said.feedback
        case Mapping():
            words = cast("Mapping[str, object]", said)
            passed, feedback = words.get("pass"), words.get("feedback")
        case _:
            return None
    return Verdict(pass_=passed, feedback=encoded(feedback)) if isinstance(passed, bool) else None


def verdict_in(text: str) -> Verdict | None:
    """The verdict in a text that is its JSON; None when it is no such thing."""
    try:
        return verdict_of(msgspec.json.decode(text))
    except UNREADABLE:
        return None
