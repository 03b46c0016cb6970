"""Handlers connect to public addresses and to what the settings name, judged when they connect."""

import ipaddress
import socket
from typing import Any

import pytest

from service.executor.handlers import reach
from service.executor.handlers.chat import chat_handler
from service.executor.handlers.chat.endpoints import Endpoints
from service.executor.handlers.http import http_handler
from service.executor.handlers.reach import Allowed, Reach, allowed_network, is_own_address
from service.executor.handlers.secrets import Secrets
from service.settings.config import ChatSettings, SecretSettings
from tests.integration.web_handlers.web_world import (
    Server,
    answer,
    asking,
    execution,
    failure,
    output,
)

PUBLIC = Reach()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "::1", "0.1.2.3", "::", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "fe80::1", "fe80::1%lo", "fc00::1", "224.0.0.1", "ff02::1",
        "255.255.255.255", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::1", "198.18.0.1", "192.0.2.1", "2001:db8::1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_denied(address: str) -> None:
    assert PUBLIC.complaint(address, 443) == "is no public address"


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_what_is_public_is_allowed(address: str) -> None:
    assert PUBLIC.complaint(address, 443) is None


def test_the_settings_allow_a_network_or_one_port_of_it() -> None:
    reach = Reach.of(["10.1.0.0/16", "127.0.0.1:11434", "[::1]:80"])
    assert reach.complaint("10.1.2.3", 1) is None
    assert reach.complaint("127.0.0.1", 11434) is None
    assert reach.complaint("::1", 80) is None
    for address, port in (("10.2.0.1", 1), ("127.0.0.1", 8000), ("::1", 81)):
        assert reach.complaint(address, port) is not None


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1/8", "127.0.0.1:x", "", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        allowed_network(text)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:7f00:1]"]
)
def test_neither_handler_reaches_this_machine(server: Server, host: str) -> None:
    url = server.url.replace("127.0.0.1", host)
    for handler, given in (
        (http_handler(PUBLIC, Secrets()), {"url": url}),
        (
            chat_handler(Endpoints(ChatSettings(any_url=True), Secrets(), PUBLIC)),
            asking(server, base_url=url),
        ),
    ):
        failed = failure(execution(handler, given)[0])
        assert (failed.error_type, failed.retryable) == ("bad_input", False)
        assert "executor.web.allow_networks" in failed.error_message
    assert not server.requests


def test_the_address_that_was_judged_is_the_one_that_is_connected_to(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with DNS rebinding: each look-up answers anew, and only the first one counts."""
    port = int(server.url.rpartition(":")[2])
    asked: list[str] = []

    def resolve(host: Any, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        address = ["127.0.0.9", "127.0.0.1"][min(len(asked) - 1, 1)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    only_nine = Reach((Allowed(ipaddress.ip_network("127.0.0.9")),))
    handler = http_handler(only_nine, Secrets())
    failed = failure(execution(handler, {"url": f"http://rebound.example:{port}"})[0])
    assert failed.error_type == "connection_error"
    assert asked == ["rebound.example"]
    assert not server.requests


def test_of_several_addresses_only_those_that_are_allowed_are_tried(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(server.url.rpartition(":")[2])
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
        for address in ("127.0.0.9", "127.0.0.8", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    server.answers(answer(body=b"{}"))
    reach = Reach.of(["127.0.0.8", "127.0.0.1"])
    ending, _ = execution(http_handler(reach, Secrets()), {"url": f"http://many.example:{port}"})
    assert output(ending)["status"] == 200


def test_a_header_is_a_secret_by_name_and_goes_to_its_origins_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "sk-0123456789")
    headers = {"Authorization": {"secret": "key", "prefix": "Bearer "}}
    given = {"url": f"{server.url}/hook", "headers": headers}

    def secret_for(*origins: str) -> Secrets:
        return Secrets({"key": SecretSettings(env="THE_KEY", for_=origins)})

    server.answers(answer(body=b"{}"))
    reach = Reach(anywhere=True)
    ending, _ = execution(http_handler(reach, secret_for(server.url)), given)
    assert output(ending)["status"] == 200
    assert server.requests[0].headers["authorization"] == "Bearer sk-0123456789"
    for elsewhere in ("https://api.openai.com", "http://127.0.0.1", "https" + server.url[4:]):
        failed = failure(execution(http_handler(reach, secret_for(elsewhere)), given)[0])
        assert failed.error_type == "bad_input"
    assert len(server.requests) == 1


def test_an_address_of_this_machine_is_denied_although_it_is_public(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert is_own_address("127.0.0.1")
    assert not is_own_address("192.0.2.1")
    monkeypatch.setattr(reach, "is_own_address", lambda address: address == "93.184.216.34")
    assert PUBLIC.complaint("93.184.216.34", 80) == "is an address of this machine"
    assert Reach.of(["93.184.216.34"]).complaint("93.184.216.34", 80) is None
