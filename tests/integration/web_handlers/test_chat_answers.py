"""The handler chat understands answers of all shapes, and fails in ways that have names."""

import time

import pytest

from service.executor.handlers.chat.limits import LIMITS
from tests.integration.web_handlers.chat_world import (
    ANSWERS,
    FAILURES,
    FINISH,
    TEXT,
    WORDS,
    hold,
    open_ended,
    quick_chat,
)
from tests.integration.web_handlers.web_world import (
    CHAT,
    PATIENCE_S,
    Server,
    asking,
    execution,
    failure,
    output,
    said,
)


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_of_all_shapes_are_understood_and_asked_for_once(server: Server, name: str) -> None:
    script, expected = ANSWERS[name]
    server.answers(script)
    ending, shown = execution(CHAT, asking(server))
    found = output(ending)
    assert found == {"finish_reason": "stop", "model": found["model"]} | expected
    assert said(shown) == found["content"], "the progress, joined, is the output"
    assert len(server.requests) == 1


def test_reasoning_is_progress_of_its_own_kind(server: Server) -> None:
    server.answers(ANSWERS["reasoning"][0])
    _, shown = execution(CHAT, asking(server))
    assert said(shown, "reasoning") == "think more"


def test_what_follows_the_end_of_the_answer_is_waited_for_a_few_seconds(server: Server) -> None:
    server.answers(open_ended(*WORDS, FINISH))
    began = time.monotonic()
    assert output(execution(quick_chat, asking(server))[0])["content"] == TEXT
    assert time.monotonic() - began < LIMITS.after_finish_s


@pytest.mark.parametrize("name", FAILURES)
def test_every_way_to_fail_has_its_name(server: Server, name: str) -> None:
    script, (error_type, retryable, wait_s, words) = FAILURES[name]
    server.answers(script)
    failed = failure(execution(CHAT, asking(server))[0])
    told = (failed.error_type, failed.retryable, failed.retry_in_s)
    assert told == (error_type, retryable, wait_s), failed.error_message
    assert words in failed.error_message
    assert failed.model_name in ("m", "model-7")
    assert len(server.requests) == 1


def test_silence_is_a_timeout(server: Server) -> None:
    server.answers(lambda _: hold.wait(PATIENCE_S))
    failed = failure(execution(CHAT, asking(server, read_timeout_s=0.1))[0])
    assert (failed.error_type, failed.token_usage) == ("timeout", None)


@pytest.mark.parametrize(
    ("name", "outcome", "expected"),
    [
        ("length", "length", {"content": TEXT[: TEXT.index("w5")], "finish_reason": "length"}),
        ("content filter", "content_filter", {"content": "", "finish_reason": "content_filter"}),
        ("a finish of its own", "eos", {"content": TEXT, "finish_reason": "eos"}),
        (
            "refusal", "refusal",
            {"content": "", "finish_reason": "stop", "refusal": "I cannot help."},
        ),
    ],
)  # fmt: skip
def test_an_outcome_that_the_task_accepts_completes_it(
    server: Server, name: str, outcome: str, expected: dict[str, object]
) -> None:
    server.answers(FAILURES[name][0])
    ending, shown = execution(CHAT, asking(server, accept=["stop", outcome]))
    assert output(ending) == expected | {"model": "model-7"}
    assert said(shown, "refusal") == expected.get("refusal", "")


def test_an_outcome_that_the_task_does_not_accept_fails_it(server: Server) -> None:
    server.answers(ANSWERS["tool calls"][0])
    failed = failure(execution(CHAT, asking(server, accept=["stop"]))[0])
    assert (failed.error_type, failed.retryable) == ("bad_response", False)
    assert "'tool_calls'" in failed.error_message
