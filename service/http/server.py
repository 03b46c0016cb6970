"""The web server: uvicorn on the core's loop, its port taken before it says that it serves."""

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import uvicorn

from service.core.core import Core
from service.http.app import create_app
from service.http.bounded_protocol import BoundedProtocol, Limits
from service.ops.operations import Operations
from service.settings.config import HttpSettings, variable_name

BACKLOG = 1024
GOODBYE_S = 5
KEEP_ALIVE_S = 75
LIMITS = Limits()


class PortBusy(Exception):
    """The address cannot be listened on; the message names it and the setting that moves it."""


class _Quiet(uvicorn.Server):
    """Signals are the process's business."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


class Listening:
    """A port that is taken: connections wait for a server. ``url`` is where it is reached."""

    def __init__(self, settings: HttpSettings) -> None:
        """Raises PortBusy."""
        self.socket = _listen(settings)
        host, port = self.socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}"


class HttpServer:
    """Serves on a port that is taken, until `stop`."""

    def __init__(
        self, core: Core, operations: Operations, listening: Listening, limits: Limits = LIMITS
    ) -> None:
        config = uvicorn.Config(
            create_app(core, operations),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=False,
            http=partial(BoundedProtocol, limits),  # type: ignore[arg-type]  # called like a class
            ws="none",
            loop="none",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GOODBYE_S,
        )
        self._server = _Quiet(config)
        self._socket = listening.socket
        self._stopped = asyncio.Event()

    async def serve(self) -> None:
        """Serve until `stop` is called."""
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Take no more requests, let those under way end (`GOODBYE_S` at most), and let go."""
        self._server.should_exit = True
        if self._server.started:
            await self._stopped.wait()
        self._socket.close()


def _listen(settings: HttpSettings) -> socket.socket:
    """The listening socket; uvicorn would end the process where it cannot have one."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
        listening.listen(BACKLOG)
        listening.setblocking(False)  # noqa: FBT003 - the standard library's signature
    except OSError as error:
        listening.close()
        variables = f"{variable_name('http.port')}, {variable_name('http.host')}"
        raise PortBusy(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): choose another "
            f"address with http.port or http.host ({variables})"
        ) from None
    return listening
