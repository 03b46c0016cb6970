"""A scripted server for the worker kit: speaks just enough of the protocol, and fails on demand."""

import json
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from holdfast_worker import Limits, Worker
from tests.waiting import until

SHORT = Limits(
    wait_s=0.2,
    grace_s=0.2,
    drain_s=1,
    goodbye_s=0.5,
    request_s=2,
    first_pause_s=0.01,
    longest_pause_s=0.3,
)

Answer = tuple[int, Any]
Script = Callable[[str, Any], Answer | None]


def problem(status: int, code: str, detail: str = "") -> Answer:
    return status, {"status": status, "code": code, "detail": detail, "extra": 1}


NO_ROUTE = problem(404, "not_found", "Not Found")


def claim(**fields: Any) -> dict[str, Any]:
    """A claim as a newer server grants it: with fields that the kit does not know."""
    return {
        "plan_id": "p", "task_id": "t", "attempt": 1, "fencing_token": 7, "kind": "k",
        "type": "worker", "input": {"n": 3}, "context": {}, "dependencies": {}, "feedback": None,
        "retry": 0, "lease_until": "2026-01-01T00:00:00Z", "lease_s": 5.0, "timeout_s": 30.0,
        "from_the_future": [1], "started": True, **fields,
    }  # fmt: skip


def granting(tasks: int) -> Script:
    """Answers claims with as many of ``tasks`` tasks as each asks for; leases are long."""
    left = deque(claim(plan_id=f"p{n}", lease_s=600.0) for n in range(tasks))

    def script(path: str, body: Any) -> Answer | None:
        if path != "/v1/claims" or not left:
            return None
        return 200, {"claims": [left.popleft() for _ in range(min(body["limit"], len(left)))]}

    return script


class ScriptedServer:
    """Grants `claims` once; ``script`` may answer a request before the rules below do.

    `seen` has each request's path and body in order, `authorization` that header of each POST. A
    script that answers with the status 0 closes the connection without a word.
    """

    def __init__(self, *claims: dict[str, Any], script: Script = lambda _path, _body: None) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.authorization: list[str | None] = []
        self._claims = deque(claims)
        self._script = script
        self._lock = threading.Lock()
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                world.authorization.append(self.headers.get("Authorization"))
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length) or b"null")
                self._reply(*world.answer(self.path, body))

            def do_GET(self) -> None:
                self._reply(*world.answer(self.path, None))

            def _reply(self, status: int, said: Any) -> None:
                if status == 0:
                    self.close_connection = True
                    return
                content = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                if status in (429, 503):
                    self.send_header("Retry-After", "0.1")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Prints nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path: str, body: Any) -> Answer:
        with self._lock:
            self.seen.append((path, body))
            said = self._script(path, body)
            return said if said is not None else self._usual(path, body)

    def _usual(self, path: str, body: Any) -> Answer:
        if path == "/v1/claims":
            granted = [self._claims.popleft()] if self._claims else []
            if not granted:
                threading.Event().wait(0.02)
            return 200, {"claims": granted, "more": 1}
        if path == "/v1/heartbeats":
            return 200, {"results": [{"status": "accepted", "new": 1} for _ in body["leases"]]}
        if path == "/v1/results":
            return 200, {"results": [{"status": "accepted", "new": 1} for _ in body["results"]]}
        return 200, {"status": "accepted", "released": [], "items": [], "sequence": 1}

    def results(self) -> list[Any]:
        """Every result that was sent, repetitions among them."""
        sent = [body for path, body in list(self.seen) if path == "/v1/results"]
        return [item for body in sent for item in body["results"]]

    def paths(self) -> list[str]:
        return [path for path, _ in list(self.seen)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def ended(server: ScriptedServer, work: Any, results: int = 1) -> list[Any]:
    """The results that a worker sends for every claim of ``server``."""
    worker = Worker("unit", slots=4, url=server.url, limits=SHORT)
    worker.task("k")(work)
    with worker:
        until(
            lambda: worker.counters.completed + worker.counters.failed >= results,
            what=f"{results} results are accepted: {server.seen}",
        )
    return server.results()
