"""Answers probes while an instance is still reading its log, and all else with 503.

A large log takes a minute. A program that watches the process can tell by `/healthz` that it lives,
and by `/readyz` how far it is and how long it will take.
"""

import asyncio

from litestar.types import HTTPScope, Receive, Scope, Send

from service.core.catching_up import HowFar
from service.http.operations import Alive, Readiness
from service.http.origin_check import OriginCheck
from service.http.problems import RequestRefused
from service.http.responses import ApiResponse, send_refusal
from service.http.server import Listening, connections_of, server_of
from service.ops.status import Check
from service.settings.config import Settings
from service.snapshots.fetching import HowFetched

MOST_S = 60  # a client asks again after at most so long


StartProgress = HowFar | HowFetched
"""How far a start is: with what it reads from the log, or with a snapshot that spares it that."""


class Starting:
    """Serves a port that is taken, from the first `tell` until `stop`."""

    def __init__(self, listening: Listening, settings: Settings) -> None:
        http = settings.http
        self._root = http.root_path
        has_tokens = settings.auth.tokens_file is not None
        self._origin_check = OriginCheck(tokens=has_tokens, allowed_hosts=http.allowed_hosts)
        # A server closes its socket at its end; the port stays taken by the other one.
        self._socket = listening.socket.dup()
        connections = connections_of(http)
        self._server = server_of(self, http, listening.tls, connections, tokens=has_tokens)
        self._serving: asyncio.Task[None] | None = None
        self._how_far: StartProgress | None = None

    def tell(self, how_far: StartProgress) -> None:
        """How far the instance is; from now on it is answered."""
        self._how_far = how_far
        if self._serving is None:
            serving = self._server.serve(sockets=[self._socket])
            self._serving = asyncio.create_task(serving, name="answers while starting")

    async def stop(self) -> None:
        """Answer no more; what comes next waits for the server that follows."""
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.wait([self._serving])
        self._socket.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or self._how_far is None:
            return
        try:
            self._origin_check.check(scope)
            await self._answer(self._how_far, scope, receive, send)
        except RequestRefused as refused:
            await send_refusal(refused, send)

    async def _answer(
        self, how_far: StartProgress, scope: HTTPScope, receive: Receive, send: Send
    ) -> None:
        path = scope["path"].removeprefix(self._root)
        detail = f"the instance is starting: {how_far}"
        if path == "/healthz":
            await ApiResponse(Alive(), status_code=200)(scope, receive, send)
        elif path == "/readyz":
            checks = [Check("start", ok=False, detail=detail)]
            answer = Readiness(ready=False, failing=["start"], checks=checks)
            await ApiResponse(answer, status_code=503)(scope, receive, send)
        else:
            left_s = how_far.left_s
            again_s = MOST_S if left_s is None else min(max(round(left_s), 1), MOST_S)
            raise RequestRefused("unavailable", detail, {"Retry-After": str(again_s)})
