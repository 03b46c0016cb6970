"""Why a handler failed: the kit's classification of exceptions, closed to the recorded types."""

from holdfast_worker import failures
from holdfast_worker.failures import MESSAGE_CHARACTERS, TaskFailed, text_of, told_by
from streams.json_values import NotJson
from streams.plan.error_types import ErrorType, closed, known


def classify(error: BaseException) -> tuple[ErrorType, bool]:
    """The recorded error type of an exception, and whether another try may help."""
    if any(isinstance(each, NotJson) for each in told_by(error)):
        return "bad_output", False
    error_type, retryable = failures.classify(error)
    return known(error_type), retryable


def describe(error: BaseException) -> str:
    """The message that is reported: what and where, bounded, never empty."""
    if not isinstance(error, TaskFailed):
        return failures.describe(error)
    _, said = closed(error.error_type, text_of(error))
    return said[:MESSAGE_CHARACTERS] or type(error).__name__
