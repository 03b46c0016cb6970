"""Why an attempt may have failed: the closed set of error types.

The set is closed because it is a metric's label (at most 20 values). Workers outside may report
any type: one that is not in the set is recorded as ``other``, its name in front of the message.
"""

from typing import Literal, get_args

from streams.json_values import text_of

ErrorType = Literal[
    "timeout",
    "connection_error",
    "rate_limited",
    "http_error",
    "bad_response",
    "bad_input",
    "bad_output",
    "too_large",
    "non_zero_exit",
    "command_not_allowed",
    "cancelled",
    "lease_lost",
    "lease_expired",
    "out_of_memory",
    "process_died",
    "rejected",
    "handler_error",
    "other",
]
ERROR_TYPES: tuple[ErrorType, ...] = get_args(ErrorType)
TYPE_CHARACTERS = 64


def known(error_type: object) -> ErrorType:
    """``error_type`` if it is in the closed set, else ``other``."""
    found: tuple[ErrorType, ...] = tuple(each for each in ERROR_TYPES if each == error_type)
    return found[0] if found else "other"


def closed(error_type: object, message: str) -> tuple[ErrorType, str]:
    """Type and message as they are recorded: an unknown type's own name goes into the message."""
    if (found := known(error_type)) != "other" or error_type == "other":
        return found, message
    name = text_of(error_type, TYPE_CHARACTERS)
    return "other", f"{name}: {message}" if message else name
