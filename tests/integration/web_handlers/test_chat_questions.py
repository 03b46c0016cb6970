"""What the handler chat asks a model server, and the span of the question."""

import pytest
from msgspec import Raw

from service.executor.attempts.endings import Success
from service.signals.tracing.spans import Span, recorder
from tests.integration.web_handlers.chat_world import ANSWERS, FAILURES
from tests.integration.web_handlers.web_world import (
    CHAT,
    DONE,
    USAGE,
    Server,
    asking,
    chunk,
    execution,
    output,
    said,
    stream,
)


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
