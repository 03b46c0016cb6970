"""The handler http against a real server on loopback that also misbehaves on purpose."""

import gzip
import threading
import time
import tracemalloc

import msgspec
import pytest
from msgspec import Raw

from holdfast_worker.cancellation import Cancellation
from service.executor.attempts.endings import Success
from service.executor.handlers.http import RESPONSE_BYTES
from tests.integration.web_handlers.web_world import (
    CHAT,
    HTTP,
    PATIENCE_S,
    Server,
    Write,
    answer,
    asking,
    execution,
    failure,
    output,
)

JSON = {"Content-Type": "application/json"}


def test_a_post_bears_what_makes_it_safe_to_repeat(server: Server) -> None:
    server.answers(answer(body=b'{"ok":true}', headers=JSON))
    given = {"url": f"{server.url}/hook?x=1", "body": {"a": 1}, "headers": {"X-Mine": "yes"}}
    ending, _ = execution(HTTP, given, traceparent="00-1-2-01")
    assert output(ending) == {"status": 200, "body": {"ok": True}}
    (request,) = server.requests
    assert request.line == "POST /hook?x=1 HTTP/1.1"
    assert request.json() == {"a": 1}
    expected = {
        "idempotency-key": "p/t", "holdfast-fencing-token": "42", "holdfast-plan": "p",
        "holdfast-task": "t", "holdfast-attempt": "3", "traceparent": "00-1-2-01",
        "x-mine": "yes", "content-type": "application/json",
    }  # fmt: skip
    assert expected.items() <= request.headers.items()


def test_without_a_body_the_task_is_posted(server: Server) -> None:
    server.answers(answer("204 No Content"))
    ending, _ = execution(HTTP, {"url": server.url}, dependencies={"d": Raw(b"7")})
    assert output(ending) == {"status": 204, "body": ""}
    assert server.requests[0].json() == {
        "plan_id": "p", "task_id": "t", "attempt": 3, "context": {"c": 1},
        "dependencies": {"d": 7}, "feedback": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        ("429 Too Many Requests", {"Retry-After": "7"}, ("rate_limited", True, 7.0)),
        ("503 Service Unavailable", {"Retry-After": "2"}, ("http_error", True, 2.0)),
        ("429 Slow", {"retry-after-ms": "900", "Retry-After": "7"}, ("rate_limited", True, 0.9)),
        ("429 Slow", {"retry-after-ms": "soon", "Retry-After": "7"}, ("rate_limited", True, 7.0)),
        ("500 Internal Server Error", {}, ("http_error", True, None)),
        ("400 Bad Request", {"Retry-After": "7"}, ("http_error", False, None)),
        ("302 Found", {"Location": "http://127.0.0.1:1/"}, ("http_error", False, None)),
    ],
)
def test_each_refusal_has_its_own_error(
    server: Server, status: str, headers: dict[str, str], expected: tuple[object, ...]
) -> None:
    server.answers(answer(status, b"because", headers=headers))
    failed = failure(execution(HTTP, {"url": server.url})[0])
    assert (failed.error_type, failed.retryable, failed.retry_in_s) == expected
    assert status in failed.error_message
    assert "because" in failed.error_message
    assert len(server.requests) == 1


def test_an_answer_has_a_bound(server: Server) -> None:
    server.answers(answer(body=b"x" * (RESPONSE_BYTES + 1)))
    assert failure(execution(HTTP, {"url": server.url})[0]).error_type == "bad_response"


def test_a_claim_of_json_must_hold(server: Server) -> None:
    server.answers(answer(body=b"<html>", headers=JSON))
    assert failure(execution(HTTP, {"url": server.url})[0]).error_type == "bad_response"


def test_a_cut_answer_is_a_connection_error(server: Server) -> None:
    server.answers(answer(body=b"half", claimed=100))
    failed = failure(execution(HTTP, {"url": server.url})[0])
    assert (failed.error_type, failed.retryable) == ("connection_error", True)


def test_a_port_without_a_listener_is_a_connection_error() -> None:
    failed = failure(execution(HTTP, {"url": "http://127.0.0.1:9/"})[0])
    assert (failed.error_type, failed.retryable) == ("connection_error", True)
    assert "127.0.0.1:9" in failed.error_message


def test_silence_is_a_timeout(server: Server) -> None:
    server.answers(lambda _: server.release.wait(PATIENCE_S))
    given = {"url": server.url, "read_timeout_s": 0.1}
    assert failure(execution(HTTP, given)[0]).error_type == "timeout"


def test_cancelling_does_not_wait_for_the_server(server: Server) -> None:
    server.answers(lambda _: server.release.wait(PATIENCE_S))
    cancelled = Cancellation()
    threading.Timer(0.2, cancelled.cancel, ["timeout"]).start()
    began = time.monotonic()
    assert failure(execution(HTTP, {"url": server.url}, cancelled)[0]).error_type == "cancelled"
    assert time.monotonic() - began < PATIENCE_S / 2


@pytest.mark.parametrize(
    "header",
    [
        "Idempotency-Key", "holdfast-attempt", "Host", "Traceparent", "Idempotency_Key",
        "Holdfast_Fencing_Token", "HOLDFAST_fencing-token", "content_length", "Accept-Encoding",
        "Proxy-Authorization", "Host ", "X Mine", "", "X-Mine:",
    ],
)  # fmt: skip
def test_reserved_headers_cannot_be_forged(server: Server, header: str) -> None:
    failed = failure(execution(HTTP, {"url": server.url, "headers": {header: "x"}})[0])
    assert (failed.error_type, failed.retryable) == ("bad_input", False)


def test_a_header_cannot_smuggle_another(server: Server) -> None:
    given = {"url": server.url, "headers": {"X-Mine": "a\r\nX-Other: b"}}
    assert failure(execution(HTTP, given)[0]).error_type == "bad_input"


@pytest.mark.parametrize("name", ["content-type", "Content-Type"])
def test_a_content_type_of_the_input_is_the_only_one(server: Server, name: str) -> None:
    server.answers(answer())
    execution(HTTP, {"url": server.url, "headers": {name: "application/vnd.mine+json"}})
    (request,) = server.requests
    assert request.headers["content-type"] == "application/vnd.mine+json"
    assert request.names.count("content-type") == 1


BOMB_BYTES = 64 * 1024 * 1024
ENDLESS_BYTES = 1024 * 1024 * 1024


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error"])
def test_an_endless_answer_is_left_at_its_bound(server: Server, status: str, kind: str) -> None:
    sent = 0

    def endless(write: Write) -> None:
        nonlocal sent
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n"
        write(head.encode())
        while sent < ENDLESS_BYTES:
            write(b"x" * 1_000_000)
            sent += 1_000_000

    for handler, given in ((HTTP, {"url": server.url}), (CHAT, asking(server))):
        sent = 0
        server.answers(endless)
        tracemalloc.start()
        failed = failure(execution(handler, given)[0])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert failed.error_type in ("bad_response", "http_error")
        assert sent < BOMB_BYTES
        assert peak < BOMB_BYTES / 4


@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-unknown"])
def test_nothing_is_decoded_so_a_small_body_stays_small(
    server: Server, coding: str, status: str
) -> None:
    bomb = gzip.compress(bytes(BOMB_BYTES))
    server.answers(answer(status, bomb, headers={"Content-Encoding": coding}))
    tracemalloc.start()
    failed = failure(execution(HTTP, {"url": server.url})[0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert peak < BOMB_BYTES / 4
    if status.startswith("200"):
        assert (failed.error_type, failed.retryable) == ("bad_response", False)
        assert repr(coding) in failed.error_message
    else:
        assert (failed.error_type, failed.retryable) == ("http_error", True)


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
def test_an_answer_without_an_end_is_cut_by_the_attempt(server: Server, status: str) -> None:
    def drip(write: Write) -> None:
        write(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode())
        while not server.release.wait(0.01):
            write(b"x")

    server.answers(drip)
    cancelled = Cancellation()
    threading.Timer(0.3, cancelled.cancel, ["timeout"]).start()
    assert failure(execution(HTTP, {"url": server.url}, cancelled)[0]).error_type == "cancelled"


def test_no_proxy_of_the_environment_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.answers(answer(body=b"{}", headers=JSON))
    assert output(execution(HTTP, {"url": server.url})[0])["status"] == 200


def test_a_critic_behind_a_url_gives_its_verdict(server: Server) -> None:
    server.answers(answer(body=b'{"pass":false,"feedback":{"why":1}}', headers=JSON))
    ending, _ = execution(HTTP, {"url": server.url}, type="critic")
    assert isinstance(ending, Success)
    assert ending.verdict is not None
    assert not ending.verdict.pass_
    assert msgspec.json.decode(ending.verdict.feedback) == {"why": 1}
