"""How long the end of a model's answer is waited for, and how long its check may take."""

import msgspec


class ChatLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one answer; tests make them smaller."""

    after_finish_s: float = 5.0  # usage and the end of the stream follow the answer
    check_s: float = 10.0  # against the JSON schema that the request demands


LIMITS = ChatLimits()
