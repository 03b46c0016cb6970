"""How an attempt ended: what its handler returned or raised, checked before it becomes a fact.

The checks are those of a request body. A result that does not fit ends the attempt as `bad_output`,
with a message for the handler's author. A failure is always reported: what does not fit in it is
left out, and its message names it.
"""

import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, assert_never, cast

import msgspec
from msgspec import UNSET, Raw

from holdfast_worker.failures import MESSAGE_CHARACTERS, TaskFailed, retry_in_s
from holdfast_worker.task import Result
from service.executor.attempts.failures import classify, describe
from service.executor.handlers.verdicts import verdict_of
from streams.json_values import NotJson, encoded, text_of
from streams.plan.events import TaskType
from streams.plan.limits import MAX_SECONDS, DelayS
from streams.plan.results import Completion, Failing, ModelName, TokenUsage, Verdict

NOTE_CHARACTERS = 400

T = TypeVar("T")


class Success(Completion, frozen=True, kw_only=True, tag=True):
    """The handler returned; ``output`` is encoded, a critic's ``verdict`` is there."""


class Failure(Failing, frozen=True, kw_only=True, tag=True):
    """The handler raised, or returned what cannot be used."""


Ending = Success | Failure


class Misfit(Exception):
    """A value from a handler does not fit; the message is for the handler's author."""


# -- what a handler returned ------------------------------------------------------------------


def conclude(returned: object, task_type: TaskType) -> Ending:
    """The ending of a handler that returned; a critic's mapping with ``pass`` is its verdict."""
    result = returned if isinstance(returned, Result) else Result(returned)
    try:
        return Success(
            output=_json("the output", result.output),
            verdict=_verdict(result, task_type),
            model_name=_model_name(result.model_name),
            token_usage=_token_usage(result.token_usage),
        )
    except Misfit as error:
        message = text_of(f"the handler returned what cannot be stored: {error}")
        return Failure(error_type="bad_output", error_message=message, retryable=False)


def _json(what: str, value: object) -> Raw:
    try:
        return encoded(value)
    except NotJson as error:
        raise Misfit(f"{what} is no JSON: {error}") from None


def _verdict(result: Result, task_type: TaskType) -> Verdict | None:
    said = result.verdict
    match task_type:
        case "critic":
            try:
                verdict = verdict_of(result.output if said is None else said)
            except NotJson as error:
                raise Misfit(f"the feedback is no JSON: {error}") from None
            if verdict is None:
                raise Misfit('a critic must return {"pass": true or false, "feedback": any JSON}')
            return verdict
        case "worker":
            if said is not None:
                raise Misfit("only a critic may give a verdict, and this task is a worker")
            return None
        case _:
            assert_never(task_type)


def _model_name(said: object) -> str | None:
    if said is None:
        return None
    name: str = _fitting("model_name", said, ModelName, "a text of 1 to 200 printable characters")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise Misfit(f"model_name is not valid Unicode: {error}") from None
    return name


def _token_usage(said: object) -> TokenUsage | None:
    if said is None:
        return None
    names = TokenUsage.__struct_fields__
    wish = f"TokenUsage, or a dict of {', '.join(names)}: whole numbers from 0"
    if isinstance(said, TokenUsage):
        set_fields = msgspec.structs.asdict(said).items()
        counts: dict[Any, Any] = {name: value for name, value in set_fields if value is not UNSET}
    elif isinstance(said, Mapping):
        counts = dict(cast("Mapping[Any, Any]", said))
    else:
        raise Misfit(f"token_usage={_shown(said)}: give {wish}")
    if unknown := [name for name in counts if name not in names]:
        raise Misfit(f"token_usage has no field {_shown(unknown[0])}: give {wish}")
    usage: TokenUsage = _fitting("token_usage", counts, TokenUsage, wish)
    return usage


def _fitting(name: str, said: object, kind: Any, wish: str) -> Any:  # noqa: ANN401
    try:
        return msgspec.convert(said, kind)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise Misfit(f"{name}={_shown(said)}: {error}; give {wish}") from None


def _shown(said: object) -> str:
    try:
        return reprlib.repr(said)
    except Exception:  # noqa: BLE001 - user code, and numbers too long to be printed
        return f"a {type(said).__name__}"


# -- what a handler raised --------------------------------------------------------------------


def failure_of(error: BaseException) -> Failure:
    """What an exception is reported as; never raises, whatever the exception's own code does."""
    try:
        return _task_failed(error) if isinstance(error, TaskFailed) else _raised(error)
    except Exception as trouble:  # noqa: BLE001 - properties and __str__ of user code
        message = f"{type(error).__name__}, which cannot be described: {text_of(trouble)}"
        return Failure(error_type="handler_error", error_message=text_of(message))


def _raised(error: BaseException) -> Failure:
    error_type, retryable = classify(error)
    return Failure(
        error_type=error_type,
        error_message=describe(error),
        retryable=retryable,
        retry_in_s=retry_in_s(error) if retryable else None,
    )


def _task_failed(error: TaskFailed) -> Failure:
    notes: list[str] = []
    error_type, _ = classify(error)
    retryable = _kept(notes, _retryable, error.retryable)
    wait_s = _kept(notes, _delay, error.retry_in_s)
    model_name = _kept(notes, _model_name, error.model_name)
    token_usage = _kept(notes, _token_usage, error.token_usage)
    message = describe(error)
    if notes:
        left_out = text_of(f" (left out: {'; '.join(notes)}", NOTE_CHARACTERS) + ")"
        message = text_of(message, MESSAGE_CHARACTERS - len(left_out)) + left_out
    return Failure(
        error_type=error_type,
        error_message=message,
        retryable=True if retryable is None else retryable,
        retry_in_s=wait_s,
        model_name=model_name,
        token_usage=token_usage,
    )


def _kept(notes: list[str], checked: Callable[[object], T | None], said: object) -> T | None:
    """The value if it fits; else nothing, and a note of why."""
    try:
        return checked(said)
    except Misfit as misfit:
        notes.append(str(misfit))
        return None


def _retryable(said: object) -> bool:
    fits: bool = _fitting("retryable", said, bool, "True or False")
    return fits


def _delay(said: object) -> float | None:
    if said is None:
        return None
    wait_s: float = _fitting("retry_in_s", said, DelayS, f"seconds from now, at most {MAX_SECONDS}")
    return wait_s
