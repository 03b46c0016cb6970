"""What the checks of a request cost: origin, token or session, permission, owner, rates.

A heartbeat goes through the whole application in process, over a core that answers at once, with
the checks and without them in turn. The aim is 3 % of the CPU of a request over sockets, 500 µs.
"""

import gc
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, cast

from service.http.front import Front
from service.http.origin_check import OriginCheck
from service.settings.config import AuthSettings, HttpSettings, Settings
from tests.bench.report import Result
from tests.unit.http_world import HOST, FakeCore
from tests.unit.tokens_world import give

ROUNDS = 30  # interleaved, the best of each: the machine is not quiet
REQUEST_US = 500.0
PATH = "/v1/plans/p/tasks/t/heartbeat"
BODY = b'{"owner":"gpu/host:1","attempt":1}'
Headers = tuple[tuple[bytes, bytes], ...]


class NoCheck:
    """Admits everything."""

    def check(self, scope: object) -> None:
        """Look at nothing."""


async def measure(scale: float) -> AsyncGenerator[Result]:
    """Microseconds of CPU that the checks add to one request."""
    with tempfile.TemporaryDirectory() as folder:
        ways = _ways(Path(folder) / "tokens.toml")
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(ROUNDS):
            for way, (front, headers) in ways.items():
                took_us = await _cpu_us(front, headers, max(int(500 * scale), 20))
                best[way] = min(best[way], took_us)
    for way in ("token", "session"):
        yield Result(
            measure=f"checks of a request with a {way}, in process",
            value=best[way] - best["none"],
            unit="us",
            at_most=REQUEST_US * 0.03,
            seen={"request_us": best[way], "share": (best[way] - best["none"]) / REQUEST_US},
        )


def _ways(path: Path) -> Mapping[str, tuple[Front, Headers]]:
    """No check at all, a worker's token, a browser's session."""
    token = give(path, "gpu", "work").encode()
    unbounded = HttpSettings(writes_per_s=1e6, bytes_per_s=1e12)  # counted all the same
    settings = Settings(auth=AuthSettings(tokens_file=path), http=unbounded)
    bare, guarded = FakeCore(), FakeCore(settings=settings)
    front = guarded.app()
    cookie = guarded.tokens.sign_in(token)[1] if guarded.tokens is not None else b""
    unchecked = Front(bare.app().litestar, bare.parts(), cast("OriginCheck", NoCheck()))
    return {
        "none": (unchecked, ()),
        "token": (front, ((b"authorization", b"Bearer " + token),)),
        "session": (front, ((b"cookie", b"holdfast_session=" + cookie),)),
    }


async def _cpu_us(front: Front, headers: Headers, requests: int) -> float:
    async def receive() -> Any:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(message["status"])

    gc.collect()
    began = time.process_time()
    for _ in range(requests):
        await front(_scope(headers), receive, send)
    return (time.process_time() - began) / requests * 1e6


def _scope(headers: Headers) -> Any:
    host, json = (b"host", HOST.encode()), (b"content-type", b"application/json")
    return {
        "type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(),
        "query_string": b"", "headers": [host, json, *headers], "http_version": "1.1",
        "scheme": "http", "root_path": "", "state": {}, "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }  # fmt: skip
