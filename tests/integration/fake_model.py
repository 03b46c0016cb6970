"""A model server of the OpenAI kind for tests: answers at once, by rule, and counts its calls."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Message = dict[str, Any]
Rule = Callable[[list[Message]], Message]


class FakeModel:
    """``rule`` makes the next message of the conversation; `url` is what MODEL_URL names.

    The first ``busy`` calls are answered 429. `calls` counts answered prompts.
    """

    def __init__(self, rule: Rule, busy: int = 0) -> None:
        self.calls: Counter[str] = Counter()
        self._rule = rule
        self._busy = busy
        self._lock = threading.Lock()
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, said = model.answer(asked)
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Retry-After", "0.1")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Prints nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def total(self) -> int:
        """How many calls were answered."""
        return sum(self.calls.values())

    def answer(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if self._busy > 0:
                self._busy -= 1
                return 429, {"error": {"message": "rate limit"}}
            self.calls[json.dumps(asked["messages"])] += 1
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        message = {"role": "assistant", **self._rule(asked["messages"])}
        return 200, {"model": "small", "usage": usage, "choices": [{"message": message}]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
