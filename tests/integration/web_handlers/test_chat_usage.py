"""The tokens of a chat: as the server reports them, or an estimate; also of answers that fail."""

import json
import threading
import time

import pytest
from msgspec import UNSET

from holdfast_worker.cancellation import Cancellation
from service.executor.attempts.endings import Success
from streams.plan.events import TokenUsage
from tests.integration.web_handlers.chat_world import (
    FAILURES,
    FINISH,
    FULL_USAGE,
    TEXT,
    WORDS,
    open_ended,
)
from tests.integration.web_handlers.web_world import (
    CHAT,
    DONE,
    PATIENCE_S,
    USAGE,
    Server,
    asking,
    chunk,
    event,
    execution,
    failure,
    said,
    stream,
)

ESTIMATED = TokenUsage(input_tokens=2, output_tokens=1, total_tokens=3, estimated=True)


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (
            FULL_USAGE,
            TokenUsage(
                input_tokens=11, output_tokens=20, total_tokens=31,
                cached_tokens=8, reasoning_tokens=5,
            ),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 4, "prompt_cache_hit_tokens": 6},
            TokenUsage(input_tokens=9, output_tokens=4, total_tokens=13, cached_tokens=6),
        ),
        (
            {"prompt_tokens": 3.0, "completion_tokens": "4", "total_tokens": 7.0},
            TokenUsage(input_tokens=3, output_tokens=4, total_tokens=7),
        ),
        (
            {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 5},
            TokenUsage(input_tokens=3, output_tokens=4, total_tokens=7),
        ),
        (
            {
                "prompt_tokens": 3, "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 9}, "completion_tokens_details": [1],
            },
            TokenUsage(input_tokens=3, output_tokens=4, total_tokens=7),
        ),
        (
            {"prompt_tokens": None, "completion_tokens": 4, "total_tokens": None},
            TokenUsage(input_tokens=2, output_tokens=4, total_tokens=6, estimated=True),
        ),
        *(
            ({"prompt_tokens": wrong, "completion_tokens": wrong, "total_tokens": wrong}, ESTIMATED)
            for wrong in (-1, 2**70, 10**400, 1.5, "many", "9" * 400, True, [3], {"n": 3}, None)
        ),
        (None, ESTIMATED),
        (7, ESTIMATED),
        ([], ESTIMATED),
        ("[" * 500 + "]" * 500, ESTIMATED),
    ],
)  # fmt: skip
def test_usage_is_what_the_server_reports_or_an_estimate_where_that_cannot_be(
    server: Server, reported: object, expected: TokenUsage
) -> None:
    usage = reported if isinstance(reported, str) else _json(reported)
    last = event('{"choices":[],"usage":' + usage + "}")
    server.answers(stream(chunk("hi"), FINISH, last, DONE))
    ending, _ = execution(CHAT, asking(server))
    assert isinstance(ending, Success), ending
    assert ending.token_usage == expected


def _json(value: object) -> str:

    return json.dumps(value)


@pytest.mark.parametrize("name", ["cut", "malformed", "an error in the middle", "length"])
def test_the_tokens_of_failed_answers_are_estimated_and_kept(server: Server, name: str) -> None:
    server.answers(FAILURES[name][0])
    failed = failure(execution(CHAT, asking(server))[0])
    assert failed.token_usage is not None
    assert failed.token_usage.estimated is True
    assert failed.token_usage.output_tokens == pytest.approx(4, abs=1)


@pytest.mark.parametrize("name", ["too quick", "no quota", "a broken server"])
def test_a_refused_question_costs_no_tokens(server: Server, name: str) -> None:
    server.answers(FAILURES[name][0])
    assert failure(execution(CHAT, asking(server))[0]).token_usage is None


def test_the_tokens_of_a_cancelled_answer_are_estimated_and_kept(server: Server) -> None:
    server.answers(open_ended(*WORDS))
    cancelled, began = Cancellation(), time.monotonic()
    threading.Timer(0.5, cancelled.cancel, ["timeout"]).start()
    ending, shown = execution(CHAT, asking(server), cancelled)
    failed = failure(ending)
    assert failed.error_type == "cancelled"
    assert failed.token_usage is not None
    assert failed.token_usage.output_tokens == -(-len(TEXT) // 4)
    assert failed.token_usage.estimated is True
    assert said(shown) == TEXT, "what came until then has been shown"
    assert time.monotonic() - began < PATIENCE_S / 2


def test_reported_usage_counts_although_the_answer_failed(server: Server) -> None:
    server.answers(stream(*WORDS, chunk(finish="length"), USAGE, DONE))
    usage = failure(execution(CHAT, asking(server))[0]).token_usage
    assert usage is not None
    assert (usage.total_tokens, usage.estimated) == (7, UNSET)


def test_tokens_of_a_useless_answer_are_recorded(server: Server) -> None:
    server.answers(stream(chunk("no json", "stop"), USAGE, DONE))
    failed = failure(execution(CHAT, asking(server), type="critic")[0])
    assert failed.error_type == "bad_response"
    assert failed.model_name == "model-7"
    assert failed.token_usage is not None
    assert failed.token_usage.total_tokens == 7
