"""A request that was answered is freed at once: it leaves no circle for the garbage collector."""

import gc
import weakref
from typing import Any

import pytest

from tests.unit.http_world import HOST, FakeCore

PATH = "/v1/plans/p/tasks/t/complete"


class Cycle:
    """As the web server's: it holds the scope, and the body is received from it."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.scope: Any = {
            "type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(),
            "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "",
            "headers": [(b"host", HOST.encode()), (b"content-type", b"application/json")],
            "state": {}, "server": (HOST, 80), "client": ("127.0.0.1", 1),
        }  # fmt: skip

    async def receive(self) -> Any:
        return {"type": "http.request", "body": self._body, "more_body": False}


@pytest.mark.parametrize(("body", "status"), [(b'{"owner":"w","attempt":1}', 200), (b"{", 400)])
async def test_a_request_is_freed_when_it_has_been_answered(body: bytes, status: int) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app, cycle = FakeCore().app(), Cycle(body)
    gone = weakref.ref(cycle)
    gc.disable()
    try:
        await app(cycle.scope, cycle.receive, send)
        del cycle
        assert gone() is None
    finally:
        gc.enable()
    assert sent[0]["status"] == status
