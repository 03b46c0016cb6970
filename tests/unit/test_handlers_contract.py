"""The handlers' contract: cancellation, keys, classification, and what a refusal says."""

import threading

import httpx
import pytest
from msgspec import Raw

from holdfast_worker.failures import (
    LONGEST_RETRY_AFTER_S,
    MESSAGE_CHARACTERS,
    TaskFailed,
    retry_after_s,
)
from holdfast_worker.task import PROGRESS_BYTES, Assignment
from service.executor.attempts.failures import classify, describe
from service.executor.handlers import Cancellation, TaskCancelled, TaskRun, handler
from service.executor.handlers.verdicts import verdict_of
from service.executor.handlers.web import checked_url


def run_of(**fields: object) -> TaskRun:
    values: dict[str, object] = {
        "plan_id": "p", "task_id": "t", "kind": "k", "type": "worker", "attempt": 2,
        "fencing_token": 9, "retry": 0, "timeout_s": 1.0, "input": Raw(b"{}"),
        "context": Raw(b"{}"), "dependencies": {}, "feedback": Raw(b"null"),
    }  # fmt: skip
    return TaskRun(Assignment(**(values | fields)), Cancellation(), lambda _: None)  # pyright: ignore[reportArgumentType]


def test_the_first_reason_to_stop_holds_and_everyone_hears_it_once() -> None:
    cancellation, heard = Cancellation(), list[str]()
    cancellation.on_cancel(lambda: heard.append("before"))
    assert cancellation.cancel("timeout")
    assert not cancellation.cancel("draining")
    cancellation.on_cancel(lambda: heard.append("after"))
    assert heard == ["before", "after"]
    assert cancellation.reason == "timeout"
    with pytest.raises(TaskCancelled, match="timeout"):
        cancellation.raise_if_cancelled()


def test_waiting_ends_when_another_thread_cancels() -> None:
    cancellation = Cancellation()
    threading.Timer(0.01, cancellation.cancel, ["timeout"]).start()
    assert cancellation.wait(10)


def test_the_key_depends_on_the_feedbacks_meaning_alone() -> None:
    one = run_of(feedback=Raw(b'{"a": 1, "b": 2}')).idempotency_key
    same = run_of(feedback=Raw(b'{"b":2,"a":1}'), attempt=7).idempotency_key
    assert one == same
    assert one != run_of(feedback=Raw(b'"other"')).idempotency_key
    assert run_of().idempotency_key == "p/t"
    assert run_of().attempt_key == "p/t/2"


def test_progress_has_a_bound() -> None:
    with pytest.raises(ValueError, match=str(PROGRESS_BYTES)):
        run_of().progress("x" * PROGRESS_BYTES)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), ("timeout", True)),
        (ConnectionResetError(), ("connection_error", True)),
        (MemoryError(), ("out_of_memory", True)),
        (httpx.ConnectError("no"), ("connection_error", True)),
        (httpx.ReadTimeout("no"), ("timeout", True)),
        (KeyError("x"), ("handler_error", True)),
        (TaskFailed("bad_input", "x", retryable=False), ("bad_input", False)),
        (TaskFailed("never heard", "x"), ("other", True)),
        (TaskCancelled(), ("cancelled", True)),
    ],
)
def test_each_exception_has_its_error_type(error: Exception, expected: tuple[str, bool]) -> None:
    assert classify(error) == expected


def test_messages_say_what_and_where_within_a_bound() -> None:
    try:
        raise KeyError("x" * 10_000)  # noqa: TRY301
    except KeyError as error:
        said = describe(error)
    assert said.startswith("KeyError")
    assert "test_handlers_contract.py:" in said
    assert len(said) <= MESSAGE_CHARACTERS


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None), ("3", 3), ("0.5", 0.5), ("-1", 0), ("nan", None), ("soon", None),
        ("1e9", LONGEST_RETRY_AFTER_S), ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_within_bounds(header: str | None, wait_s: float | None) -> None:
    assert retry_after_s(header) == wait_s


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/", "http://", "x", "http://[::1"])
def test_only_web_addresses_are_asked(url: str) -> None:
    with pytest.raises(TaskFailed) as refused:
        checked_url(url)
    assert classify(refused.value) == ("bad_input", False)


@pytest.mark.parametrize("said", [None, [], {}, {"pass": "yes"}, {"pass": 1}, "pass"])
def test_what_is_no_verdict(said: object) -> None:
    assert verdict_of(said) is None


def test_a_handler_needs_a_kind_and_a_known_pool() -> None:
    with pytest.raises(ValueError, match="kind"):
        handler("")
    with pytest.raises(ValueError, match="'thread' or a 'process'"):
        handler("x", pool="fibre")  # pyright: ignore[reportArgumentType]
