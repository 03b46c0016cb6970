"""Another side on loopback that misbehaves on purpose, and handlers that are run against it."""

import socketserver
import threading
from collections.abc import Callable

import msgspec
from msgspec import Raw

from holdfast_worker.cancellation import Cancellation
from holdfast_worker.progress import Channel, Piece, Shown
from holdfast_worker.task import Assignment
from service.executor.attempts.endings import Failure, Success
from service.executor.attempts.execution import execute
from service.executor.handlers.chat import chat_handler
from service.executor.handlers.chat.endpoints import Endpoints
from service.executor.handlers.http import http_handler
from service.executor.handlers.reach import Reach
from service.executor.handlers.secrets import Secrets
from service.settings.config import ChatSettings

PATIENCE_S = 40.0
ANYWHERE = Reach(anywhere=True)
ENDPOINTS = Endpoints(ChatSettings(any_url=True), Secrets(), ANYWHERE)
CHAT = chat_handler(ENDPOINTS)
HTTP = http_handler(ANYWHERE, Secrets())
Write = Callable[[bytes], None]
Script = Callable[[Write], object]


class Request(msgspec.Struct):
    """What the server was asked."""

    line: str
    names: list[str]
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
                names: list[str] = []
                while header := self.rfile.readline().decode().strip():
                    name, _, value = header.partition(":")
                    names.append(name.lower())
                    headers[name.lower()] = value.strip()
                body = self.rfile.read(int(headers.get("content-length", "0")))
                outer.requests.append(Request(line, names, headers, body))
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

    def show(piece: Shown) -> None:
        shown.append(piece if isinstance(piece, Piece) else msgspec.json.decode(piece))

    ending = execute(
        handler,  # pyright: ignore[reportArgumentType]
        work,
        cancelled or Cancellation(),
        show,
    )
    return ending, shown


def said(shown: list[object], channel: Channel = "text") -> str:
    """The texts that were shown on a channel, joined."""
    pieces = [each for each in shown if isinstance(each, Piece)]
    return "".join(piece.text for piece in pieces if piece.channel == channel)


def output(ending: Success | Failure) -> dict[str, object]:
    assert isinstance(ending, Success), ending
    return msgspec.json.decode(ending.output)


def failure(ending: Success | Failure) -> Failure:
    assert isinstance(ending, Failure), ending
    return ending


def chunk(text: str | None = None, finish: str | None = None, **fields: object) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"model": "model-7", "choices": [choice]} | fields)


def event(data: object) -> bytes:
    text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
    return f"data: {text}\n\n".encode()


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
