"""A chat's answer must fit the format that the task has asked for."""

import pytest

from service.executor.attempts.endings import Success
from tests.integration.web_handlers.chat_world import quick_chat
from tests.integration.web_handlers.web_world import (
    CHAT,
    DONE,
    USAGE,
    Server,
    asking,
    chunk,
    execution,
    failure,
    output,
    stream,
)

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
