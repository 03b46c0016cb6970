"""The commands that speak with an instance: one line says what is wrong, with an exit code."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.cli import submit as submit_module
from service.cli.main import main

PLAN = {"tasks": [{"id": "a", "kind": "echo"}]}
Answer = tuple[int, bytes, str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NATS_URL", raising=False)
    monkeypatch.setattr(submit_module.tenacity.nap, "sleep", lambda _: None)


@pytest.fixture
def plan_file(tmp_path: Path) -> str:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLAN))
    return str(path)


class Scripted:
    """An HTTP server that gives the answers of its test, in order."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, str, Any, str | None]] = []
        self.cursors: list[str | None] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def do_GET(self) -> None:
                self._answer(None)

            def _answer(self, body: object) -> None:
                token = self.headers.get("authorization")
                scripted.requests.append((self.command, self.path, body, token))
                scripted.cursors.append(self.headers.get("last-event-id"))
                status, content, media_type = scripted.answers.pop(0)
                self.send_response(status)
                self.send_header("content-type", media_type)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *_: object) -> None: ...  # noqa: A002

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def accepts(self, plan_id: str = "p") -> None:
        body = {"plan_id": plan_id, "sequence": 1, "created": True}
        self.answers.append((201, json.dumps(body).encode(), "application/json"))

    def refuses(self, status: int, code: str) -> None:
        body = {"code": code, "detail": "because"}
        self.answers.append((status, json.dumps(body).encode(), "application/problem+json"))

    def streams(self, *events: dict[str, Any]) -> None:
        frames = [frame("hello", {"head": 9, "heartbeat_s": 15.0})]
        frames += [frame(event["type"], event, event["sequence"]) for event in events]
        if events and events[-1]["type"] == "plan.finished":
            frames.append(frame("closed", {"reason": "plan_finished"}))
        self.answers.append((200, b"".join(frames), "text/event-stream"))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


def frame(name: str, data: dict[str, Any], sequence: int | None = None) -> bytes:
    head = "" if sequence is None else f"id: {sequence}\n"
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def event(sequence: int, kind: str, **data: object) -> dict[str, Any]:
    task_id = "a" if kind.startswith("task") else None
    return {"sequence": sequence, "type": kind, "plan_id": "p", "task_id": task_id, "data": data}


# -- submit -----------------------------------------------------------------------------------


def test_submit_prints_the_plan_and_gives_it_an_id(
    server: Scripted, plan_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.accepts()
    assert main(["submit", plan_file, "--url", server.url]) == 0
    assert "plan p accepted, sequence 1" in capsys.readouterr().out
    ((_, path, body, _),) = server.requests
    assert path == "/v1/plans"
    assert len(body["id"]) == 32


def test_submit_says_the_same_again_until_it_is_heard(server: Scripted, plan_file: str) -> None:
    server.refuses(503, "log_unavailable")
    server.refuses(503, "contended")
    server.accepts()
    assert main(["submit", plan_file, "--url", server.url]) == 0
    assert len({body["id"] for _, _, body, _ in server.requests}) == 1


def test_submit_shows_a_token(server: Scripted, plan_file: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret-token\n")
    server.accepts()
    main(["submit", plan_file, "--url", server.url, "--token-file", str(tmp_path / "token")])
    assert server.requests[0][3] == "Bearer secret-token"


def test_submit_follows_a_plan_to_its_end_through_a_broken_stream(
    server: Scripted, plan_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.accepts()
    server.streams(event(1, "plan.submitted"), event(2, "task.claimed", owner="w", attempt=1))
    server.refuses(503, "unavailable")
    server.streams(
        event(3, "task.completed", owner="w"), event(4, "plan.finished", status="FAILED")
    )
    assert main(["submit", plan_file, "--url", server.url, "--follow"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["1", "2", "3", "4"]
    assert server.cursors[1:] == [None, "2", "2"]


@pytest.mark.parametrize(("status", "code"), [("COMPLETED", 0), ("CANCELLED", 1), ("FAILED", 1)])
def test_following_ends_with_the_plans_outcome(
    server: Scripted, plan_file: str, status: str, code: int
) -> None:
    server.accepts()
    server.streams(event(1, "plan.finished", status=status))
    assert main(["submit", plan_file, "--url", server.url, "--follow"]) == code


def test_a_plan_that_is_refused_is_the_callers_fault(
    server: Scripted, plan_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refuses(400, "invalid_request")
    assert main(["submit", plan_file, "--url", server.url]) == 2
    assert capsys.readouterr().err == "holdfast: invalid_request: because\n"


def test_an_instance_that_is_not_there_is_exit_code_3(
    plan_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", plan_file, "--url", "http://127.0.0.1:1"]) == 3
    assert capsys.readouterr().err.startswith("holdfast: cannot reach http://127.0.0.1:1")


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"a": "\\ud800"}', "[" * 100_000])
def test_a_file_that_holds_no_plan_is_exit_code_2(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    assert main(["submit", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content", "at"),
    [
        ("bad.json", '{"tasks": [\n  {"id": "a",}\n]}', "line 2, column 14"),
        ("bad.yaml", "tasks:\n  - id: a\n   kind: echo", "line 3, column 4"),
        ("bad.toml", 'name = "x"\ntasks = oops', "line 2, column"),
        ("bad.json", '{"n": NaN}', "NaN"),
        ("bad.yml", "tasks: 2020-01-01", "JSON cannot hold it"),
    ],
)
def test_a_mistake_in_a_plan_is_named_with_its_place(
    tmp_path: Path, name: str, content: str, at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert main(["submit", str(path)]) == 2
    assert at in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plan.yaml", "tasks:\n  - id: a\n    kind: echo\n"),
        ("plan.toml", '[[tasks]]\nid = "a"\nkind = "echo"\n'),
    ],
)
def test_plans_may_be_yaml_or_toml(
    server: Scripted, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    server.accepts()
    assert main(["submit", name, "--url", server.url]) == 0
    assert server.requests[0][2]["tasks"] == PLAN["tasks"]


# -- events -----------------------------------------------------------------------------------


def test_events_may_hold_what_python_takes_for_the_end_of_a_line(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "a\u2028b\u0085c"
    done = event(1, "task.completed", output=odd)
    content = frame("task.completed", done, 1).replace(b"\\u2028", "\u2028".encode())
    content = content.replace(b"\\u0085", "\u0085".encode())
    assert b"\\u" not in content
    server.answers.append(
        (200, content + frame("closed", {"reason": "plan_finished"}), "text/event-stream")
    )
    assert main(["events", "--plan", "p", "--json", "--url", server.url]) == 0
    assert json.loads(capsys.readouterr().out.removesuffix("\n")) == done


def test_events_may_hold_bytes_that_are_no_text(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message published past Holdfast goes to its readers as it is."""
    content = frame("task.completed", event(1, "task.completed", output="odd"), 1)
    server.answers.append((
        200,
        content.replace(b"odd", b"o\xff") + frame("closed", {"reason": "plan_finished"}),
        "text/event-stream",
    ))  # fmt: skip
    assert main(["events", "--plan", "p", "--json", "--url", server.url]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["output"] == "o\ufffd"


def test_what_workers_say_cannot_steer_the_terminal(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = event(1, "task.failed", owner="w\x1b[2J", error_message="a\rb") | {"at": "now"}
    server.streams(bad, event(2, "plan.finished", status="FAILED") | {"at": "now"})
    assert main(["events", "--plan", "p", "--url", server.url]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 2
    assert not {"\x1b", "\r"} & set(said)


def test_what_answers_but_is_no_holdfast_ends_the_command(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers.append((200, b"<html>", "text/html"))
    assert main(["events", "--url", server.url]) == 2
    assert "no Holdfast, it answers text/html" in capsys.readouterr().err


def test_a_gap_is_printed_and_what_follows_it_is_shown(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    gap = {"requested": 3, "first": 10, "head": 12, "reason": "expired"}
    content = frame("hello", {"head": 12, "heartbeat_s": 15.0}) + frame("gap", gap)
    content += frame("plan.paused", event(10, "plan.paused") | {"at": "now"}, 10)
    content += frame("closed", {"reason": "plan_finished"})
    server.answers.append((200, content, "text/event-stream"))
    assert main(["events", "--after", "3", "--url", server.url]) == 0
    told = capsys.readouterr()
    assert "gap: the log no longer has sequences 4 to 9; going on from 10" in told.err
    assert "plan.paused" in told.out
    assert server.cursors == ["3"]


@pytest.mark.parametrize(("status", "code"), [(400, "invalid_request"), (401, "unauthorized")])
def test_events_that_are_refused_for_good_end_the_command(
    server: Scripted, capsys: pytest.CaptureFixture[str], status: int, code: str
) -> None:
    server.refuses(503, "unavailable")
    server.refuses(status, code)
    assert main(["events", "--url", server.url]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first == "-- not connected: unavailable: because; trying again"
    assert last == f"holdfast: {code}: because"


def test_the_url_follows_the_settings(
    server: Scripted, plan_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_HTTP__PORT", server.url.rpartition(":")[2])
    server.accepts()
    assert main(["submit", plan_file]) == 0
