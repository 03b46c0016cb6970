"""The handler chat against a real server on loopback that also misbehaves on purpose."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw

from holdfast_worker.cancellation import Cancellation
from holdfast_worker.handler import AnyHandler, handler
from holdfast_worker.task import Result, TaskRun
from service.executor.attempts.endings import Success
from service.executor.handlers.chat import ChatInput, answered, chat_handler
from service.executor.handlers.chat.answer import TEXT_CHARACTERS
from service.executor.handlers.chat.endpoints import Endpoints
from service.executor.handlers.chat.limits import LIMITS, ChatLimits
from service.executor.handlers.chat.stream import EVENT_BYTES
from service.executor.handlers.reach import Reach
from service.executor.handlers.secrets import Secrets
from service.settings.config import ChatSettings, SecretSettings
from service.signals.tracing.spans import Span, recorder
from streams.plan.events import TokenUsage
from tests.integration.web_world import (
    CHAT,
    DONE,
    ENDPOINTS,
    PATIENCE_S,
    USAGE,
    Script,
    Server,
    Write,
    answer,
    asking,
    chunk,
    event,
    execution,
    failure,
    output,
    said,
    stream,
)

JSON = {"Content-Type": "application/json"}
FULL_USAGE: dict[str, Any] = {
    "prompt_tokens": 11, "completion_tokens": 20, "total_tokens": 31,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 5},
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def part(**delta: object) -> bytes:
    """A chunk with any delta."""
    return event({"model": "model-7", "choices": [{"index": 0, "delta": delta}]})


def document(message: dict[str, object], finish: str | None = "stop", **fields: object) -> bytes:
    """An answer in one piece."""
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}
    whole = {"model": "model-7", "choices": [choice], "usage": FULL_USAGE}
    return msgspec.json.encode(whole | fields)


def call(**fields: object) -> dict[str, object]:
    return {"index": 0, "type": "function"} | fields


def aborted(*events: bytes) -> Script:
    """A stream that ends in the middle of a chunk of the connection."""

    def script(write: Write) -> None:
        stream(*events, whole=False)(write)
        write(b"ff\r\ndata: ")

    return script


def open_ended(*events: bytes) -> Script:
    """A stream that is silent after its events and stays open."""

    def script(write: Write) -> None:
        stream(*events, whole=False)(write)
        hold.wait(PATIENCE_S)

    return script


hold = threading.Event()


@pytest.fixture(autouse=True)
def _connections_end() -> Iterator[None]:
    hold.clear()
    yield
    hold.set()


WORDS = tuple(chunk(f"w{number} ") for number in range(20))
TEXT = "".join(f"w{number} " for number in range(20))
FINISH = chunk(finish="stop")
WHOLE_USAGE = event({"choices": [], "usage": FULL_USAGE})
QUOTA = b'{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}'
LIMIT = b'{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}'
TOOL_PARTS = (
    part(
        role="assistant", content=None,
        tool_calls=[call(id="call_1", function={"name": "search", "arguments": ""})],
    ),
    *(
        part(tool_calls=[{"index": 0, "function": {"arguments": piece}}])
        for piece in ('{"q":', ' "weather', ' in Bern"}')
    ),
)  # fmt: skip
TOOL_CALL = {"id": "call_1", "name": "search", "arguments": '{"q": "weather in Bern"}'}


# -- answers that are to be understood --------------------------------------------------------

ANSWERS: dict[str, tuple[Script, dict[str, object]]] = {
    "a stream": (stream(*WORDS, FINISH, WHOLE_USAGE, DONE), {"content": TEXT}),
    "without usage": (stream(*WORDS, FINISH, DONE), {"content": TEXT}),
    "without [DONE]": (stream(*WORDS, FINISH), {"content": TEXT}),
    "cut after the last word": (aborted(*WORDS, FINISH), {"content": TEXT}),
    "without the last blank line": (stream(*WORDS, FINISH.rstrip()), {"content": TEXT}),
    "one JSON document": (
        answer(body=document({"content": "hi"}), headers=JSON), {"content": "hi"},
    ),
    "a document without a name": (
        answer(body=b" \n" + document({"content": "hi"})), {"content": "hi"},
    ),
    "a document without an end": (
        answer(body=document({"content": "hi"}, None), headers=JSON), {"content": "hi"},
    ),
    "a document with tool calls": (
        answer(body=document({
            "content": None,
            "tool_calls": [call(id="call_1", function={"name": "search", "arguments": "{}"})],
        }, "tool_calls"), headers=JSON),
        {"content": "", "finish_reason": "tool_calls",
         "tool_calls": [TOOL_CALL | {"arguments": "{}"}]},
    ),
    "tool calls": (
        stream(*TOOL_PARTS, chunk(finish="tool_calls"), WHOLE_USAGE, DONE),
        {"content": "", "finish_reason": "tool_calls", "tool_calls": [TOOL_CALL]},
    ),
    "tool calls that end with stop": (
        stream(*TOOL_PARTS, FINISH, DONE), {"content": "", "tool_calls": [TOOL_CALL]},
    ),
    "several calls, mixed": (
        stream(
            part(tool_calls=[call(id="a", function={"name": "f", "arguments": "[1"})]),
            part(tool_calls=[call(index=1, id="b", function={"name": "g"})]),
            part(tool_calls=[
                call(function={"arguments": "]"}), call(index=1, function={"arguments": "{}"}),
            ]),
            chunk(finish="tool_calls"), DONE,
        ),
        {"content": "", "finish_reason": "tool_calls", "tool_calls": [
            {"id": "a", "name": "f", "arguments": "[1]"},
            {"id": "b", "name": "g", "arguments": "{}"},
        ]},
    ),
    "calls without an index, arguments as an object": (
        stream(
            part(tool_calls=[{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]),
            part(tool_calls=[{"id": "b", "function": {"name": "g", "arguments": "{}"}}]),
            chunk(finish="tool_calls"), DONE,
        ),
        {"content": "", "finish_reason": "tool_calls", "tool_calls": [
            {"id": "a", "name": "f", "arguments": '{"x":1}'},
            {"id": "b", "name": "g", "arguments": "{}"},
        ]},
    ),
    "reasoning": (
        stream(part(reasoning_content="think "), part(reasoning="more"), *WORDS, FINISH, DONE),
        {"content": TEXT},
    ),
    "null everywhere": (
        stream(
            event({"id": None, "model": None, "choices": None, "usage": None, "error": None}),
            event({"choices": [{"delta": None, "finish_reason": None}]}),
            part(content=None, refusal=None, tool_calls=None, reasoning_content=None),
            *WORDS, FINISH, DONE,
        ),
        {"content": TEXT, "model": "model-7"},
    ),
    "names of odd shapes": (
        stream(event({"id": 7, "model": 7, "choices": [{"delta": {"content": "hi"}}]}),
               event({"model": ["m"] * 50, "choices": [{"finish_reason": "stop"}]}), DONE),
        {"content": "hi", "model": "m"},
    ),
    "line separators in the text": (
        stream(chunk("a\u2028data: b\u0085c\x0b"), FINISH, DONE),
        {"content": "a\u2028data: b\u0085c\x0b"},
    ),
    "comments, carriage returns and an event name": (
        stream(b": ping\r\n\r\n", b"event: chunk\r\n" + chunk("ü€𝄞").replace(b"\n", b"\r\n"),
               FINISH.replace(b"\n", b"\r"), b": ping\n\n", DONE),
        {"content": "ü€𝄞"},
    ),
    "a long burst": (
        stream(*(chunk("x" * 30_000) for _ in range(3)), FINISH, DONE), {"content": "x" * 90_000},
    ),
}  # fmt: skip


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


@handler("chat", input=ChatInput)
async def quick_chat(task: TaskRun) -> Result:
    return await answered(task, ENDPOINTS, ChatLimits(after_finish_s=0.1, check_s=0.5))


def test_what_follows_the_end_of_the_answer_is_waited_for_a_few_seconds(server: Server) -> None:
    server.answers(open_ended(*WORDS, FINISH))
    began = time.monotonic()
    assert output(execution(quick_chat, asking(server))[0])["content"] == TEXT
    assert time.monotonic() - began < LIMITS.after_finish_s


# -- answers that are to fail, each in its own way --------------------------------------------

Fails = tuple[str, bool, float | None, str]
FAILURES: dict[str, tuple[Script, Fails]] = {
    "too quick": (
        answer("429 Slow", LIMIT, headers={"Retry-After": "2"}), ("rate_limited", True, 2, "limit"),
    ),
    "too quick by milliseconds": (
        answer("429 Slow", LIMIT, headers={"retry-after-ms": "900"}),
        ("rate_limited", True, 0.9, "limit"),
    ),
    "no quota": (
        answer("429 Slow", QUOTA, headers={"retry-after-ms": "900"}),
        ("rate_limited", False, None, "quota"),
    ),
    "no quota, in a stream": (
        stream(event(QUOTA.decode())), ("rate_limited", False, None, "quota"),
    ),
    "too quick, in a stream": (
        stream(event(LIMIT.decode())), ("rate_limited", True, None, "limit"),
    ),
    "an error as a document": (
        answer(body=b'{"error":{"message":"bad","code":503}}', headers=JSON),
        ("http_error", True, None, "bad"),
    ),
    "a wrong request as a document": (
        answer(body=b'{"error":{"message":"bad","type":"invalid_request_error"}}'),
        ("http_error", False, None, "bad"),
    ),
    "an error in the middle": (
        stream(*WORDS[:3], event({"error": {"message": "oops", "type": "server_error"}})),
        ("http_error", True, None, "oops"),
    ),
    "an error that is a text": (
        stream(event({"error": "overloaded"})), ("http_error", True, None, "overloaded"),
    ),
    "a redirect": (
        answer("307 Temporary Redirect", headers={"Location": "http://127.0.0.1:9/"}),
        ("http_error", False, None, "redirects are not followed"),
    ),
    "a broken server": (answer("500 Oops", b"{}"), ("http_error", True, None, "500")),
    "no such model": (answer("404 Not Found", b"{}"), ("http_error", False, None, "404")),
    "cut": (aborted(*WORDS[:5]), ("connection_error", True, None, "")),
    "ended before the last word": (
        stream(*WORDS[:5], DONE), ("connection_error", True, None, "ended before"),
    ),
    "malformed": (
        stream(*WORDS[:5], event('{"choices": [{"delta": {"conte'), *WORDS[:3], FINISH),
        ("bad_response", True, None, "malformed"),
    ),
    "another shape": (
        stream(event({"choices": "none"})), ("bad_response", True, None, "malformed"),
    ),
    "a number for the text": (stream(part(content=7)), ("bad_response", True, None, "malformed")),
    "nested deeply": (
        stream(event("[" * 5_000)), ("bad_response", True, None, "malformed"),
    ),
    "half a surrogate pair": (
        stream(event('{"choices":[{"delta":{"content":"\\ud800"}}]}')),
        ("bad_response", True, None, "malformed"),
    ),
    "a page of HTML": (
        answer(body=b"<html>sign in</html>"), ("bad_response", True, None, "sign in"),
    ),
    "nothing": (answer(), ("bad_response", True, None, "neither")),
    "length": (
        stream(*WORDS[:5], chunk(finish="length"), DONE), ("bad_response", False, None, "'length'"),
    ),
    "content filter": (
        stream(chunk(finish="content_filter")), ("bad_response", False, None, "'content_filter'"),
    ),
    "a finish of its own": (
        stream(*WORDS, chunk(finish="eos")), ("bad_response", False, None, "'eos'"),
    ),
    "refusal": (
        stream(part(refusal="I cannot "), part(refusal="help."), FINISH),
        ("bad_response", False, None, "I cannot help."),
    ),
    "tool calls that are not there": (
        stream(chunk("", "tool_calls")), ("bad_response", True, None, "has none"),
    ),
    "a call without a name": (
        stream(part(tool_calls=[call(id="a", function={"arguments": "{}"})]), FINISH),
        ("bad_response", True, None, "without a name"),
    ),
    "coded": (
        answer(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
        ("bad_response", False, None, "'gzip'"),
    ),
    "a long line": (
        stream(*(b"x" * 65_536 for _ in range(EVENT_BYTES // 65_536 + 1))),
        ("bad_response", False, None, "larger than"),
    ),
    "an event of many lines": (
        stream(*(b"data: x\n" * 8192 for _ in range(EVENT_BYTES // 65_536 + 1))),
        ("bad_response", False, None, "larger than"),
    ),
    "a large document": (
        answer(body=b"{" + b" " * EVENT_BYTES, headers=JSON),
        ("bad_response", False, None, "larger than"),
    ),
    "too many words": (
        stream(*(chunk("x" * 65_536) for _ in range(TEXT_CHARACTERS // 65_536 + 1))),
        ("bad_response", False, None, "characters of text"),
    ),
    "too many calls": (
        stream(*(part(tool_calls=[call(index=n, id=f"c{n}")]) for n in range(200))),
        ("bad_response", False, None, "tool calls"),
    ),
}  # fmt: skip


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


# -- what it costs ----------------------------------------------------------------------------

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
    import json  # noqa: PLC0415 - it writes numbers of any length

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


# -- answers in a format ----------------------------------------------------------------------

PERSON = {
    "type": "object", "required": ["name"], "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
}  # fmt: skip


def formatted(server: Server, schema: object) -> dict[str, object]:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    return asking(server, params={"response_format": wanted})


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ('{"name": "Ann", "age": 7}', None),
        ('{"age": 7}', "name"),
        ('{"name": "Ann", "age": -1}', "$['age']"),
        ("Sure! Here it is.", "no JSON"),
        ("7", "object"),
    ],
)
def test_an_answer_must_fit_the_schema_that_was_asked_for(
    server: Server, words: str, complaint: str | None
) -> None:
    server.answers(stream(chunk(words, "stop"), USAGE, DONE))
    ending, _ = execution(CHAT, formatted(server, PERSON))
    if complaint is None:
        assert output(ending)["content"] == words
        return
    failed = failure(ending)
    assert (failed.error_type, failed.retryable) == ("bad_response", True)
    assert complaint in failed.error_message
    assert failed.token_usage is not None


@pytest.mark.parametrize(("words", "fits"), [('{"a": 1}', True), ("[1]", False), ("{", False)])
def test_an_answer_must_be_the_object_that_was_asked_for(
    server: Server,
    words: str,
    fits: bool,  # noqa: FBT001
) -> None:
    server.answers(stream(chunk(words, "stop"), DONE))
    given = asking(server, params={"response_format": {"type": "json_object"}})
    ending, _ = execution(CHAT, given)
    assert isinstance(ending, Success) is fits


def test_a_schema_fetches_nothing(server: Server) -> None:
    server.answers(stream(chunk("{}", "stop"), DONE))
    failed = failure(execution(CHAT, formatted(server, {"$ref": f"{server.url}/schema"}))[0])
    assert "schema" in failed.error_message
    assert len(server.requests) == 1


def test_a_schema_that_takes_for_ever_is_given_up(server: Server) -> None:
    twice: dict[str, object] = {
        f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)
    }
    schema = {"$ref": "#/$defs/d0", "$defs": twice | {"d60": {"type": "string"}}}
    server.answers(stream(chunk("7", "stop"), DONE))
    failed = failure(execution(quick_chat, formatted(server, schema))[0])
    assert "could not be checked" in failed.error_message


# -- its span ---------------------------------------------------------------------------------


class Spans:
    """Keeps what was recorded."""

    def __init__(self) -> None:
        self.all: list[Span] = []

    def ended(self, span: Span) -> None:
        self.all.append(span)


@pytest.mark.parametrize("name", ["a stream", "cut"])
def test_its_span_has_the_attributes_of_generative_ai(server: Server, name: str) -> None:
    server.answers((ANSWERS if name in ANSWERS else FAILURES)[name][0])
    spans = Spans()
    token = recorder.set(spans)
    try:
        traceparent = f"00-{'ab' * 16}-{'cd' * 8}-01"
        given = asking(server, params={"temperature": 0.5, "max_tokens": 9})
        execution(CHAT, given, traceparent=traceparent)
    finally:
        recorder.reset(token)
    (span,) = spans.all
    assert (span.name, span.kind) == ("chat m", "client")
    expected = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.5, "gen_ai.request.max_tokens": 9,
        "gen_ai.response.model": "model-7", "server.address": "127.0.0.1",
    }  # fmt: skip
    assert expected.items() <= span.attributes.items()
    if name == "cut":
        assert span.error_type == "connection_error"
        assert "gen_ai.response.finish_reasons" not in span.attributes
        assert span.attributes["gen_ai.usage.output_tokens"] == 4
    else:
        assert span.error_type is None
        assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
        assert span.attributes["gen_ai.usage.input_tokens"] == 11


# -- the question -----------------------------------------------------------------------------


def test_a_model_is_asked_and_its_answer_is_streamed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", "sk-very-secret")
    server.answers(
        stream(b": a comment\n\n", chunk("Hel"), chunk("lo ☃"), chunk(finish="stop"), USAGE, DONE)
    )
    given = asking(server, params={"temperature": 0}, api_key_env="TEST_API_KEY")
    ending, shown = execution(CHAT, given)
    assert output(ending) == {"content": "Hello ☃", "finish_reason": "stop", "model": "model-7"}
    assert isinstance(ending, Success)
    assert ending.model_name == "model-7"
    assert ending.token_usage is not None
    assert (ending.token_usage.input_tokens, ending.token_usage.total_tokens) == (5, 7)
    assert said(shown) == "Hello ☃"
    (request,) = server.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.headers["authorization"] == "Bearer sk-very-secret"
    asked = request.json()
    assert asked["temperature"] == 0
    assert asked["stream_options"] == {"include_usage": True}


def test_an_event_may_arrive_in_pieces(server: Server) -> None:
    whole = chunk("one") + chunk("two", "stop").replace(b"\n", b"\r\n") + DONE
    server.answers(stream(*(whole[at : at + 7] for at in range(0, len(whole), 7))))
    assert output(execution(CHAT, asking(server))[0])["content"] == "onetwo"


def test_a_wrong_key_is_final_and_never_quoted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", "sk-very-secret")
    server.answers(answer("401 Unauthorized", b"Incorrect API key provided: sk-very-secret."))
    failed = failure(execution(CHAT, asking(server, api_key_env="TEST_API_KEY"))[0])
    assert (failed.error_type, failed.retryable) == ("http_error", False)
    assert "sk-very-secret" not in failed.error_message
    assert "***" in failed.error_message


LONG_KEY = "sk-" + "k" * 60


def test_a_key_is_masked_also_where_the_quotation_of_an_error_is_cut(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", LONG_KEY)
    server.answers(answer("401 Unauthorized", b"x" * 980 + LONG_KEY.encode()))
    failed = failure(execution(CHAT, asking(server, api_key_env="TEST_API_KEY"))[0])
    assert "sk-" not in failed.error_message


# -- endpoints of the settings ----------------------------------------------------------------


def bound(server: Server, for_: str = "", **fields: str) -> AnyHandler:
    """The handler of an installation whose settings name the server `model`."""
    url = f"{server.url}/v1"
    settings = msgspec.convert({"endpoints": {"model": {"base_url": url} | fields}}, ChatSettings)
    secret = SecretSettings(env="TEST_API_KEY", for_=(for_ or server.url,))
    return chat_handler(Endpoints(settings, Secrets({"key": secret}), Reach()))


def question(**fields: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": "hello"}]} | fields


@pytest.mark.parametrize("key", [{"api_key_env": "TEST_API_KEY"}, {"secret": "key"}])
def test_an_endpoint_of_the_settings_is_asked_with_its_key(
    server: Server, monkeypatch: pytest.MonkeyPatch, key: dict[str, str]
) -> None:
    monkeypatch.setenv("TEST_API_KEY", LONG_KEY)
    server.answers(stream(chunk("hi", "stop"), USAGE, DONE))
    ending, _ = execution(bound(server, "", **key), question(endpoint="model"))
    assert output(ending)["content"] == "hi"
    assert server.requests[0].headers["authorization"] == f"Bearer {LONG_KEY}"


@pytest.mark.parametrize(
    "given",
    [
        {"endpoint": "other"}, {}, {"endpoint": "model", "base_url": "http://h/"},
        {"endpoint": "model", "api_key_env": "OTHER_API_KEY"},
        {"base_url": "http://127.0.0.1:9/", "api_key_env": "TEST_API_KEY"},
    ],
)  # fmt: skip
def test_no_input_names_a_url_or_a_key_of_its_own(server: Server, given: dict[str, object]) -> None:
    failed = failure(execution(bound(server), question(**given))[0])
    assert (failed.error_type, failed.retryable) == ("bad_input", False)
    assert not server.requests


def test_a_secret_is_not_sent_where_it_is_not_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", LONG_KEY)
    elsewhere = bound(server, "https://api.openai.com", secret="key")  # noqa: S106 - its name
    failed = failure(execution(elsewhere, question(endpoint="model"))[0])
    assert failed.error_type == "bad_input"
    assert "is not for" in failed.error_message
    assert not server.requests


@pytest.mark.parametrize("name", ["HOME", "AWS_SECRET_ACCESS_KEY", "NOT_SET_API_KEY"])
def test_only_keys_are_read_from_the_environment(server: Server, name: str) -> None:
    failed = failure(execution(CHAT, asking(server, api_key_env=name))[0])
    assert (failed.error_type, failed.retryable) == ("bad_input", False)
    assert not server.requests


def test_tokens_of_a_useless_answer_are_recorded(server: Server) -> None:
    server.answers(stream(chunk("no json", "stop"), USAGE, DONE))
    failed = failure(execution(CHAT, asking(server), type="critic")[0])
    assert failed.error_type == "bad_response"
    assert failed.model_name == "model-7"
    assert failed.token_usage is not None
    assert failed.token_usage.total_tokens == 7


def test_a_critic_is_shown_the_work_and_asked_for_a_verdict(server: Server) -> None:
    words = 'Here:\n```json\n{"pass": false, "feedback": "shorter"}\n```'
    server.answers(stream(chunk(words, "stop"), DONE))
    ending, _ = execution(CHAT, asking(server), type="critic", dependencies={"d": Raw(b'"work"')})
    assert isinstance(ending, Success)
    assert ending.verdict is not None
    assert not ending.verdict.pass_
    messages = server.requests[0].json()["messages"]
    assert '{"d":"work"}' in str(messages)
    assert '"pass"' in str(messages)


def test_feedback_goes_back_to_the_model(server: Server) -> None:
    server.answers(stream(chunk("better", "stop"), DONE))
    execution(CHAT, asking(server), feedback=Raw(b'"make it shorter"'))
    messages = server.requests[0].json()["messages"]
    assert "make it shorter" in str(messages)
