"""The handlers http and chat against a real server on loopback that also misbehaves on purpose."""

import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
from msgspec import Raw

from service.executor.attempts.endings import Failure, Success
from service.executor.attempts.execution import execute
from service.executor.handlers.chat import chat
from service.executor.handlers.contract import Assignment, Cancellation
from service.executor.handlers.http import RESPONSE_BYTES, post

PATIENCE_S = 10.0
Write = Callable[[bytes], None]
Script = Callable[[Write], object]


class Request(msgspec.Struct):
    """What the server was asked."""

    line: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        return msgspec.json.decode(self.body)


class Server:
    """Answers each connection with the next script; keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.scripts: list[Script] = []
        self.release = threading.Event()
        outer = self

        class Connection(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line = self.rfile.readline().decode().strip()
                headers: dict[str, str] = {}
                while header := self.rfile.readline().decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = self.rfile.read(int(headers.get("content-length", "0")))
                outer.requests.append(Request(line, headers, body))
                script = outer.scripts.pop(0)
                try:
                    script(self._write)
                except (BrokenPipeError, ConnectionResetError):
                    return

            def _write(self, data: bytes) -> None:
                self.wfile.write(data)
                self.wfile.flush()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def answers(self, *scripts: Script) -> "Server":
        self.scripts += scripts
        return self

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.close()


def answer(
    status: str = "200 OK",
    body: bytes = b"",
    claimed: int | None = None,
    headers: dict[str, str] | None = None,
) -> Script:
    """A whole answer; ``claimed`` is a Content-Length that need not be true."""
    length = len(body) if claimed is None else claimed
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return lambda write: write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def execution(
    handler: object, given: object, cancelled: Cancellation | None = None, **fields: object
) -> tuple[Success | Failure, list[object]]:
    values: dict[str, object] = {
        "plan_id": "p", "task_id": "t", "kind": "web", "type": "worker", "attempt": 3,
        "fencing_token": 42, "retry": 0, "timeout_s": 60.0, "context": Raw(b'{"c":1}'),
        "dependencies": {}, "feedback": Raw(b"null"),
    }  # fmt: skip
    work = Assignment(**(values | fields), input=Raw(msgspec.json.encode(given)))  # pyright: ignore[reportArgumentType]
    shown: list[object] = []
    ending = execute(
        handler,  # pyright: ignore[reportArgumentType]
        work,
        cancelled or Cancellation(),
        lambda data: shown.append(msgspec.json.decode(data)),
    )
    return ending, shown


def output(ending: Success | Failure) -> dict[str, object]:
    assert isinstance(ending, Success), ending
    return msgspec.json.decode(ending.output)


def failure(ending: Success | Failure) -> Failure:
    assert isinstance(ending, Failure), ending
    return ending


# -- http -------------------------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}


def test_a_post_bears_what_makes_it_safe_to_repeat(server: Server) -> None:
    server.answers(answer(body=b'{"ok":true}', headers=JSON))
    given = {"url": f"{server.url}/hook?x=1", "body": {"a": 1}, "headers": {"X-Mine": "yes"}}
    ending, _ = execution(post, given, traceparent="00-1-2-01")
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
    ending, _ = execution(post, {"url": server.url}, dependencies={"d": Raw(b"7")})
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
        ("500 Internal Server Error", {}, ("http_error", True, None)),
        ("400 Bad Request", {"Retry-After": "7"}, ("http_error", False, None)),
        ("302 Found", {"Location": "http://127.0.0.1:1/"}, ("http_error", False, None)),
    ],
)
def test_refusals_are_told_apart(
    server: Server, status: str, headers: dict[str, str], expected: tuple[object, ...]
) -> None:
    server.answers(answer(status, b"because", headers=headers))
    failed = failure(execution(post, {"url": server.url})[0])
    assert (failed.error_type, failed.retryable, failed.retry_in_s) == expected
    assert status in failed.error_message
    assert "because" in failed.error_message
    assert len(server.requests) == 1


def test_an_answer_has_a_bound(server: Server) -> None:
    server.answers(answer(body=b"x" * (RESPONSE_BYTES + 1)))
    assert failure(execution(post, {"url": server.url})[0]).error_type == "bad_response"


def test_a_claim_of_json_must_hold(server: Server) -> None:
    server.answers(answer(body=b"<html>", headers=JSON))
    assert failure(execution(post, {"url": server.url})[0]).error_type == "bad_response"


def test_a_cut_answer_is_a_connection_error(server: Server) -> None:
    server.answers(answer(body=b"half", claimed=100))
    failed = failure(execution(post, {"url": server.url})[0])
    assert (failed.error_type, failed.retryable) == ("connection_error", True)


def test_nobody_listening_is_a_connection_error() -> None:
    failed = failure(execution(post, {"url": "http://127.0.0.1:9/"})[0])
    assert (failed.error_type, failed.retryable) == ("connection_error", True)
    assert "127.0.0.1:9" in failed.error_message


def test_silence_is_a_timeout(server: Server) -> None:
    server.answers(lambda _: server.release.wait(PATIENCE_S))
    given = {"url": server.url, "read_timeout_s": 0.1}
    assert failure(execution(post, given)[0]).error_type == "timeout"


def test_cancelling_does_not_wait_for_the_server(server: Server) -> None:
    server.answers(lambda _: server.release.wait(PATIENCE_S))
    cancelled = Cancellation()
    threading.Timer(0.2, cancelled.cancel, ["timeout"]).start()
    began = time.monotonic()
    assert failure(execution(post, {"url": server.url}, cancelled)[0]).error_type == "cancelled"
    assert time.monotonic() - began < PATIENCE_S / 2


@pytest.mark.parametrize("header", ["Idempotency-Key", "holdfast-attempt", "Host", "Traceparent"])
def test_reserved_headers_cannot_be_forged(server: Server, header: str) -> None:
    failed = failure(execution(post, {"url": server.url, "headers": {header: "x"}})[0])
    assert (failed.error_type, failed.retryable) == ("bad_input", False)


def test_a_header_cannot_smuggle_another(server: Server) -> None:
    given = {"url": server.url, "headers": {"X-Mine": "a\r\nX-Other: b"}}
    assert failure(execution(post, given)[0]).error_type == "bad_input"


def test_a_critic_behind_a_url_gives_its_verdict(server: Server) -> None:
    server.answers(answer(body=b'{"pass":false,"feedback":{"why":1}}', headers=JSON))
    ending, _ = execution(post, {"url": server.url}, type="critic")
    assert isinstance(ending, Success)
    assert ending.verdict is not None
    assert not ending.verdict.pass_
    assert msgspec.json.decode(ending.verdict.feedback) == {"why": 1}


# -- chat -------------------------------------------------------------------------------------


def chunk(text: str | None = None, finish: str | None = None, **fields: object) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"model": "model-7", "choices": [choice]} | fields)


def event(data: object) -> bytes:
    said = data if isinstance(data, str) else msgspec.json.encode(data).decode()
    return f"data: {said}\n\n".encode()


USAGE = event(
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
)
DONE = event("[DONE]")


def stream(*events: bytes, whole: bool = True) -> Script:
    """A chunked stream of server-sent events; without ``whole`` it is cut in the middle."""

    def script(write: Write) -> None:
        write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for each in events:
            write(f"{len(each):x}\r\n".encode() + each + b"\r\n")
        if whole:
            write(b"0\r\n\r\n")

    return script


def asking(server: Server, **fields: object) -> dict[str, object]:
    message = {"role": "user", "content": "hello"}
    return {"base_url": f"{server.url}/v1/", "model": "m", "messages": [message]} | fields


def test_a_model_is_asked_and_its_words_are_streamed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", "sk-secret")
    server.answers(
        stream(b": a comment\n\n", chunk("Hel"), chunk("lo ☃"), chunk(finish="stop"), USAGE, DONE)
    )
    given = asking(server, params={"temperature": 0}, api_key_env="TEST_API_KEY")
    ending, shown = execution(chat, given)
    assert output(ending) == {"content": "Hello ☃", "finish_reason": "stop", "model": "model-7"}
    assert isinstance(ending, Success)
    assert ending.model_name == "model-7"
    assert ending.token_usage is not None
    assert (ending.token_usage.input_tokens, ending.token_usage.total_tokens) == (5, 7)
    assert "".join(str(each["text"]) for each in shown) == "Hello ☃"  # pyright: ignore[reportIndexIssue, reportArgumentType, reportCallIssue]
    (request,) = server.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.headers["authorization"] == "Bearer sk-secret"
    asked = request.json()
    assert asked["temperature"] == 0
    assert asked["stream_options"] == {"include_usage": True}


def test_an_event_may_arrive_in_pieces(server: Server) -> None:
    whole = chunk("one") + chunk("two", "stop").replace(b"\n", b"\r\n") + DONE
    server.answers(stream(*(whole[at : at + 7] for at in range(0, len(whole), 7))))
    assert output(execution(chat, asking(server))[0])["content"] == "onetwo"


def test_progress_is_at_most_a_few_a_second(server: Server) -> None:
    server.answers(stream(*(chunk("x") for _ in range(500)), chunk(finish="stop"), DONE))
    ending, shown = execution(chat, asking(server))
    assert output(ending)["content"] == "x" * 500
    assert len(shown) <= 10
    assert sum(len(str(each["text"])) for each in shown) == 500  # pyright: ignore[reportIndexIssue, reportArgumentType, reportCallIssue]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            answer("429 Too Many Requests", b"slow down", headers={"Retry-After": "3"}),
            ("rate_limited", 3.0),
        ),
        (answer("500 Oops", b"{}"), ("http_error", None)),
        (stream(chunk("a"), event("{not json")), ("bad_response", None)),
        (stream(chunk("a"), event({"choices": "none"})), ("bad_response", None)),
        (stream(chunk("a"), event({"error": {"message": "overloaded"}})), ("http_error", None)),
        (stream(chunk("a"), whole=False), ("connection_error", None)),
        (stream(chunk("a"), DONE), ("connection_error", None)),
        (stream(chunk("a")), ("connection_error", None)),
    ],
)
def test_what_can_go_wrong_in_a_stream(
    server: Server, script: Script, expected: tuple[str, float | None]
) -> None:
    server.answers(script)
    failed = failure(execution(chat, asking(server))[0])
    assert (failed.error_type, failed.retry_in_s) == expected
    assert failed.retryable


def test_a_wrong_key_is_final_and_never_quoted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", "sk-secret")
    server.answers(answer("401 Unauthorized", b"bad key"))
    failed = failure(execution(chat, asking(server, api_key_env="TEST_API_KEY"))[0])
    assert (failed.error_type, failed.retryable) == ("http_error", False)
    assert "sk-secret" not in failed.error_message


@pytest.mark.parametrize("name", ["HOME", "AWS_SECRET_ACCESS_KEY", "NOT_SET_API_KEY"])
def test_only_keys_are_read_from_the_environment(server: Server, name: str) -> None:
    failed = failure(execution(chat, asking(server, api_key_env=name))[0])
    assert (failed.error_type, failed.retryable) == ("bad_input", False)
    assert not server.requests


def test_tokens_of_a_useless_answer_are_recorded(server: Server) -> None:
    server.answers(stream(chunk("no json", "stop"), USAGE, DONE))
    failed = failure(execution(chat, asking(server), type="critic")[0])
    assert failed.error_type == "bad_response"
    assert failed.model_name == "model-7"
    assert failed.token_usage is not None
    assert failed.token_usage.total_tokens == 7


def test_a_critic_is_shown_the_work_and_asked_for_a_verdict(server: Server) -> None:
    said = 'Here:\n```json\n{"pass": false, "feedback": "shorter"}\n```'
    server.answers(stream(chunk(said, "stop"), DONE))
    ending, _ = execution(chat, asking(server), type="critic", dependencies={"d": Raw(b'"work"')})
    assert isinstance(ending, Success)
    assert ending.verdict is not None
    assert not ending.verdict.pass_
    messages = server.requests[0].json()["messages"]
    assert '{"d":"work"}' in str(messages)
    assert '"pass"' in str(messages)


def test_feedback_goes_back_to_the_model(server: Server) -> None:
    server.answers(stream(chunk("better", "stop"), DONE))
    execution(chat, asking(server), feedback=Raw(b'"make it shorter"'))
    messages = server.requests[0].json()["messages"]
    assert "make it shorter" in str(messages)


def test_cancelling_ends_a_stream_that_hangs(server: Server) -> None:
    def hang(write: Write) -> None:
        stream(chunk("a"), whole=False)(write)
        server.release.wait(PATIENCE_S)

    server.answers(hang)
    cancelled = Cancellation()
    threading.Timer(0.2, cancelled.cancel, ["lease_lost"]).start()
    assert failure(execution(chat, asking(server), cancelled)[0]).error_type == "cancelled"
