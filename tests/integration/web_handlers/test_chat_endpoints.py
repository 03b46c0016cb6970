"""A chat goes to endpoints of the settings with a key that is for them, and never quotes it."""

import msgspec
import pytest

from holdfast_worker.handler import AnyHandler
from service.executor.handlers.chat import chat_handler
from service.executor.handlers.chat.endpoints import Endpoints
from service.executor.handlers.reach import Reach
from service.executor.handlers.secrets import Secrets
from service.settings.config import ChatSettings, SecretSettings
from tests.integration.web_handlers.web_world import (
    CHAT,
    DONE,
    USAGE,
    Server,
    answer,
    asking,
    chunk,
    execution,
    failure,
    output,
    stream,
)

LONG_KEY = "sk-" + "k" * 60


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


def test_a_wrong_key_is_final_and_never_quoted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", "sk-very-secret")
    server.answers(answer("401 Unauthorized", b"Incorrect API key provided: sk-very-secret."))
    failed = failure(execution(CHAT, asking(server, api_key_env="TEST_API_KEY"))[0])
    assert (failed.error_type, failed.retryable) == ("http_error", False)
    assert "sk-very-secret" not in failed.error_message
    assert "***" in failed.error_message


def test_a_key_is_masked_also_where_the_quotation_of_an_error_is_cut(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", LONG_KEY)
    server.answers(answer("401 Unauthorized", b"x" * 980 + LONG_KEY.encode()))
    failed = failure(execution(CHAT, asking(server, api_key_env="TEST_API_KEY"))[0])
    assert "sk-" not in failed.error_message
