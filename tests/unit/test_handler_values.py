"""What a handler returns or raises becomes a fact that can be read, or a failure that can."""

import asyncio
import datetime as dt
import decimal
import time
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from msgspec import Raw, Struct

from holdfast_worker.failures import MESSAGE_CHARACTERS
from holdfast_worker.task import Assignment, Task
from service.executor.attempts.endings import Ending, Failure, Success
from service.executor.attempts.execution import execute
from service.executor.handlers import (
    Cancellation,
    Result,
    TaskFailed,
    TaskRun,
    TokenUsage,
    Verdict,
    handler,
)
from service.http.schemas import CompleteBody, CompletedItem, FailBody, FailedItem
from streams.codec import HEADER_LINE, decode, encode_headers, encode_payload
from streams.log import Fact, Unreadable
from streams.plan import commands
from streams.plan.error_types import ERROR_TYPES
from streams.plan.events import Completed, Failed, Heartbeat, TaskEvent, TaskType
from streams.plan.results import Completion, Failing
from tests.unit.test_json_values import circle, nested

Work = Callable[[TaskRun], object]


def ending_of(work: Work, task_type: TaskType = "worker") -> Ending:
    assignment = Assignment(
        plan_id="p", task_id="t", kind="k", type=task_type, attempt=1, fencing_token=1, retry=0,
        timeout_s=1.0, input=Raw(b"null"), context=Raw(b"{}"), dependencies={},
        feedback=Raw(b"null"),
    )  # fmt: skip
    with structlog.testing.capture_logs():
        return execute(handler("k")(work), assignment, Cancellation(), lambda _: None)


def read_back(event: TaskEvent) -> TaskEvent:
    """The event out of its own message, as every instance will read it."""
    block = HEADER_LINE + encode_headers(event, "id-1") + b"\r\n"  # pyright: ignore[reportArgumentType]
    fact = decode(1, 2.0, "plans.p.t", block, encode_payload(event))  # pyright: ignore[reportArgumentType]
    assert isinstance(fact, Fact), fact
    assert isinstance(fact.event, TaskEvent)
    return fact.event


def stored(ending: Ending) -> TaskEvent:
    match ending:
        case Success():
            said = {name: getattr(ending, name) for name in ending.__struct_fields__}
            return read_back(Completed(owner="w", attempt=1, **said))
        case Failure():
            fields = ("error_type", "error_message", "retry_in_s", "model_name", "token_usage")
            said = {name: getattr(ending, name) for name in fields}
            assert ending.error_type in ERROR_TYPES
            assert 0 < len(ending.error_message) <= MESSAGE_CHARACTERS
            return read_back(Failed(owner="w", attempt=1, **said))


def raises(error: BaseException) -> Work:
    def work(_: TaskRun) -> None:
        raise error

    return work


def usage(**counts: Any) -> Work:
    return lambda _: Result("x", token_usage=TokenUsage(**counts))


def plain(task: TaskRun) -> Task:
    assert isinstance(task, Task)
    return task


def failed(*said: Any, **more: Any) -> Work:
    def work(_: TaskRun) -> None:
        raise TaskFailed(*said, **more)

    return work


class NoText(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class NoStatus(Exception):
    @property
    def response(self) -> object:
        raise LookupError


class NoCall(TaskFailed):
    def __init__(self) -> None:  # pyright: ignore[reportMissingSuperCall]
        """Forgets to call TaskFailed's."""


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda _: {"score": float("nan")}, "$.score is NaN"),
        (lambda _: {1: "a", "1": "b"}, "twice"),
        (lambda _: "half \udcff", "valid Unicode"),
        (lambda _: {"half \udcff": 1}, "valid Unicode"),
        (lambda _: [{"deep": {"half \udcff": []}}], "valid Unicode"),
        (lambda _: object(), "no JSON"),
        (lambda _: circle(), "contains itself"),
        (lambda _: nested(980), "levels deep"),
        (lambda _: 10**5000, "no JSON"),
        (lambda _: Raw(b"{"), "no JSON"),
        (usage(input_tokens=-5), "input_tokens"),
        (usage(input_tokens=None), "got `null`"),
        (usage(output_tokens=7.5), "got `float`"),
        (usage(input_tokens="12"), "got `str`"),
        (usage(input_tokens=2**70), "<= 9223372036854775807"),
        (usage(input_tokens=10**5000), "<= 9223372036854775807"),
        (lambda _: Result("x", token_usage={"prompt_tokens": 3}), "'prompt_tokens'"),
        (lambda _: Result("x", token_usage=7), "token_usage=7"),  # pyright: ignore[reportArgumentType]
        (lambda _: Result("x", model_name=4), "model_name=4"),  # pyright: ignore[reportArgumentType]
        (lambda _: Result("x", model_name="m\udcff"), "model_name"),
        (lambda _: Result("x", model_name="m" * 100_000), "1 to 200"),
        (lambda _: Result("x", model_name="m\n\x1b[31m"), "printable"),
        (lambda _: Result("x", verdict=Verdict(pass_=True)), "only a critic"),
        (lambda task: task.progress({"p": float("inf")}), "$.p is NaN"),
        (lambda task: task.progress("p\udcff"), "valid Unicode"),
        (lambda task: task.progress({"p\udcff": 1}), "valid Unicode"),
        (lambda task: plain(task).checkpoint("place", "p\udcff"), "valid Unicode"),
        (lambda task: plain(task).step("place", lambda: {"p\udcff": 1}), "valid Unicode"),
    ],
)
def test_a_result_that_does_not_fit_gets_a_message_for_its_author(work: Work, words: str) -> None:
    ending = ending_of(work)
    assert isinstance(ending, Failure)
    assert (ending.error_type, ending.retryable) == ("bad_output", False)
    assert words in ending.error_message
    stored(ending)


@pytest.mark.parametrize(
    "said",
    [
        {"pass": "yes"},
        {"pass": True, "feedback": float("nan")},
        {"pass": True, "feedback": "half \udcff"},
        Result("x", verdict=Verdict(pass_=1)),  # pyright: ignore[reportArgumentType]
        Result("x", verdict=Verdict(pass_=True, feedback=Raw(b"{"))),
    ],
)
def test_a_verdict_that_does_not_fit_is_a_bad_output(said: object) -> None:
    ending = ending_of(lambda _: said, "critic")
    assert isinstance(ending, Failure)
    assert ending.error_type == "bad_output"
    stored(ending)


def test_results_that_fit_are_kept() -> None:
    result: Any = Result({1: "a"}, model_name="m", token_usage={"input_tokens": 3})
    ending = ending_of(lambda _: result)
    assert ending == Success(
        output=Raw(b'{"1":"a"}'), model_name="m", token_usage=TokenUsage(input_tokens=3)
    )
    feedback: Any = {"why": "because"}
    verdict = Verdict(pass_=False, feedback=feedback)
    judged = stored(ending_of(lambda _: Result("x", verdict=verdict), "critic"))
    assert isinstance(judged, Completed)
    assert judged.verdict == Verdict(pass_=False, feedback=Raw(b'{"why":"because"}'))


@pytest.mark.parametrize(
    ("work", "error_type", "words"),
    [
        (raises(ValueError("no such file: b\udcff")), "handler_error", r"b\udcff"),
        (failed("bad_input", "no such file: b\udcff"), "bad_input", r"b\udcff"),
        (failed("\udcff", "odd type"), "other", r"\udcff: odd type"),
        (failed("t" * 100_000, "long type"), "other", "t" * 64 + ": long type"),
        (failed(None, "no type"), "other", "None: no type"),
        (failed(3, "a number"), "other", "3: a number"),
        (failed("bad_input", None), "bad_input", "None"),
        (failed("bad_input", b"bytes"), "bad_input", "bytes"),
        (failed("bad_input", ""), "bad_input", "TaskFailed"),
        (raises(ValueError("x" * 3_000_000)), "handler_error", "xxx (test_handler_values.py:"),
        (raises(ValueError("nul \x00 inside")), "handler_error", "nul \x00 inside"),
        (raises(NoText()), "handler_error", "NoText"),
        (raises(NoStatus("x")), "handler_error", "cannot be described"),
        (raises(NoCall()), "handler_error", "cannot be described"),
        (raises(SystemExit(3)), "handler_error", "SystemExit"),
        (raises(KeyboardInterrupt()), "handler_error", "KeyboardInterrupt"),
        (raises(GeneratorExit()), "handler_error", "GeneratorExit"),
        (raises(StopIteration("x")), "handler_error", "StopIteration"),
        (raises(asyncio.CancelledError()), "cancelled", "CancelledError"),
        (raises(ExceptionGroup("many", [ValueError("a")])), "handler_error", "many"),
    ],
)
def test_an_exception_is_always_reported(work: Work, error_type: str, words: str) -> None:
    ending = ending_of(work)
    assert isinstance(ending, Failure)
    assert ending.error_type == error_type
    assert words in ending.error_message
    stored(ending)


@pytest.mark.parametrize(
    "wait",
    [
        "1", -5, float("nan"), float("inf"), time.time(), time.time() * 1000, time.time_ns(),
        dt.timedelta(seconds=1), True, 10**5000,
    ],
    ids=["text", "negative", "nan", "inf", "clock", "ms", "ns", "timedelta", "bool", "huge"],
)  # fmt: skip
def test_a_wait_that_is_none_is_left_out_and_named(wait: object) -> None:
    ending = ending_of(failed("rate_limited", "later", retry_in_s=wait))
    assert isinstance(ending, Failure)
    assert (ending.error_type, ending.retryable, ending.retry_in_s) == ("rate_limited", True, None)
    assert ending.error_message.startswith("later (left out: retry_in_s=")
    assert "seconds from now" in ending.error_message
    stored(ending)


@pytest.mark.parametrize(
    ("wait", "kept"), [(None, None), (0, 0.0), (1.5, 1.5), (7 * 86400, 604800.0)]
)
def test_a_wait_in_seconds_is_kept(wait: Any, kept: float | None) -> None:
    ending = ending_of(failed("rate_limited", "later", retry_in_s=wait))
    assert isinstance(ending, Failure)
    assert (ending.retry_in_s, ending.error_message) == (kept, "later")


def test_what_else_does_not_fit_in_a_failure_is_left_out() -> None:
    work = failed(
        "bad_input", "m" * 5000, retryable="no", model_name=4, token_usage=decimal.Decimal(3)
    )
    ending = ending_of(work)
    assert isinstance(ending, Failure)
    assert (ending.retryable, ending.model_name, ending.token_usage) == (True, None, None)
    for name in ("retryable='no'", "model_name=4", "token_usage=Decimal"):
        assert name in ending.error_message
    stored(ending)


@pytest.mark.parametrize(
    "event",
    [
        Completed(owner="w", attempt=1, token_usage=TokenUsage(input_tokens=-1)),
        Completed(owner="w", attempt=1, model_name="m\udcff"),
        Completed(owner="w", attempt=1, model_name=4),  # pyright: ignore[reportArgumentType]
        Completed(owner="w", attempt=1, output=Raw(b"[1")),
        Failed(owner="w", attempt=1, error_type="x", error_message="\udcff"),
        Failed(owner="w", attempt=1, error_type="x", retry_in_s="1"),  # pyright: ignore[reportArgumentType]
        Heartbeat(owner="w", attempt=1, lease_s=float("nan")),
    ],
)
def test_a_fact_that_could_not_be_read_is_never_written(event: Any) -> None:
    with pytest.raises(Unreadable):
        encode_payload(event)


@pytest.mark.parametrize(
    ("result", "kinds"),
    [
        (Completion, (CompleteBody, CompletedItem, Success, commands.Complete, Completed)),
        (Failing, (FailBody, FailedItem, Failure, commands.Fail)),
    ],
)
def test_a_result_has_the_same_fields_from_body_to_fact(
    result: type[Struct], kinds: tuple[type[Struct], ...]
) -> None:
    for kind in kinds:
        assert set(result.__struct_fields__) <= set(kind.__struct_fields__), kind
    # Whether a failure may be retried is decided when the fact is written.
    assert set(Failing.__struct_fields__) - {"retryable"} <= set(Failed.__struct_fields__)
