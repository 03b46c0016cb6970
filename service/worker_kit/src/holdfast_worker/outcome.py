"""How an attempt ended, as it is reported: what its handler returned or raised."""

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from holdfast_worker.cancellation import StopReason
from holdfast_worker.failures import TaskFailed, classify, describe, retry_in_s
from holdfast_worker.task import Result, TaskRun, TaskType
from holdfast_worker.tokens import Spent
from holdfast_worker.values import NotJson, encoded

_CRITIC = 'a critic must return {"pass": true or false, "feedback": any JSON}'


class Completed(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="outcome",
    tag="completed",
):  # fmt: skip
    """The handler returned; a critic's ``verdict`` is there."""

    output: Raw
    verdict: Raw | UnsetType = UNSET
    model_name: str | None = None
    token_usage: Any = None


class Failed(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="outcome",
    tag="failed",
):  # fmt: skip
    """The handler raised, or returned what cannot be used."""

    error_type: str
    error_message: str = ""
    retryable: bool = True
    retry_in_s: float | None = None
    model_name: str | None = None
    token_usage: Any = None


class Released(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="outcome",
    tag="released",
):  # fmt: skip
    """The lease is given back unspent; tokens that its attempt used are reported all the same."""

    reason: str = ""
    model_name: str | None = None
    token_usage: Any = None


Outcome = Completed | Failed | Released


def returned(value: object, task: TaskRun) -> Completed | Failed:
    """The outcome of a handler that returned ``value``."""
    result = value if isinstance(value, Result) else Result(value)
    try:
        return Completed(
            output=encoded(result.output),
            verdict=_verdict(result, task.type),
            model_name=result.model_name or task.spent.model_name,
            token_usage=task.spent.usage if result.token_usage is None else result.token_usage,
        )
    except NotJson as error:
        return bad_output(f"the handler returned what cannot be stored: {error}", task.spent)


def bad_output(message: str, spent: Spent | None) -> Failed:
    """The handler returned something that does not fit; another attempt would not help."""
    return Failed(
        error_type="bad_output",
        error_message=message,
        retryable=False,
        model_name=spent.model_name if spent else None,
        token_usage=spent.usage if spent else None,
    )


def raised(error: BaseException, spent: Spent | None) -> Failed:
    """The outcome of a handler that raised; never raises itself."""
    model_name, usage = (spent.model_name, spent.usage) if spent else (None, None)
    try:
        error_type, retryable = classify(error)
        if isinstance(error, TaskFailed):
            model_name = error.model_name or model_name
            usage = usage if error.token_usage is None else error.token_usage
        return Failed(
            error_type=error_type,
            error_message=describe(error),
            retryable=bool(retryable),
            retry_in_s=retry_in_s(error) if retryable else None,
            model_name=model_name,
            token_usage=usage,
        )
    except Exception as trouble:  # noqa: BLE001 - properties and __str__ of user code
        message = f"{type(error).__name__}, which cannot be described: {type(trouble).__name__}"
        return Failed(error_type="handler_error", error_message=message)


def stopped(
    reason: StopReason | None,
    ended: Completed | Failed | None,
    task: TaskRun | None,
    after_s: float,
) -> Outcome:
    """What is reported of an attempt that was asked to stop; ``ended`` None: it still runs."""
    if isinstance(ended, Completed) and reason != "timeout":
        return ended
    model_name, usage = _used(ended, task)
    if reason != "timeout":
        return Released(reason=reason or "", model_name=model_name, token_usage=usage)
    return Failed(
        error_type="timeout",
        error_message=f"the attempt ran longer than {after_s:g} s",
        model_name=model_name,
        token_usage=usage,
    )


def _used(ended: Completed | Failed | None, task: TaskRun | None) -> tuple[str | None, Any]:
    """Model and tokens of an attempt that was stopped; a handler that ended may name its own."""
    if ended is not None:
        return ended.model_name, ended.token_usage
    return (None, None) if task is None else (task.spent.model_name, task.spent.usage)


def _verdict(result: Result, task_type: TaskType) -> Raw | UnsetType:
    if task_type == "worker":
        if result.verdict is not None:
            raise NotJson("only a critic may give a verdict, and this task is a worker")
        return UNSET
    said = result.output if result.verdict is None else result.verdict
    plain = msgspec.to_builtins(said) if isinstance(said, msgspec.Struct) else said
    if not isinstance(plain, Mapping):
        raise NotJson(_CRITIC)
    words = cast("Mapping[str, Any]", plain)
    if not isinstance(words.get("pass"), bool):
        raise NotJson(_CRITIC)
    return encoded({"pass": words["pass"], "feedback": words.get("feedback")})
