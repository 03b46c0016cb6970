"""The web server: uvicorn on the core's loop, its port taken before it says that it serves."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog
import uvicorn

from service.core.core import Core
from service.http.access import Access
from service.http.app import create_app
from service.http.bounded_protocol import BoundedProtocol, ConnectionLimits
from service.http.handshakes import HandshakeLimits, Handshakes
from service.http.origin_check import RESPONSE_HEADERS
from service.http.shares import Shares
from service.http.tls import tls_of
from service.ops.operations import Operations
from service.runtime.tuning import connections_allowed
from service.settings.config import HttpSettings
from service.settings.keys import variable_name
from service.settings.rules import is_loopback

BACKLOG = 1024
EXPECTED_PROXY = (
    "a proxy on a private network that ends TLS, as in docs/howto/behind-a-proxy.md; "
    "or set http.tls_cert and http.tls_key"
)
GOODBYE_S = 5
KEEP_ALIVE_S = 75
HANDSHAKES = 500
PROBING = 16  # connections for probes, of the files that are kept in reserve

log = structlog.get_logger("holdfast.http")


class PortBusy(Exception):
    """The address cannot be listened on; the message names it and the setting that moves it."""


class _Server(uvicorn.Server):
    """uvicorn on a port that is taken; signals belong to the process."""

    def __init__(
        self, config: uvicorn.Config, tls: ssl.SSLContext | None, limits: ConnectionLimits
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._limits = limits

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does it, with a time limit for the TLS handshake."""
        protocol = partial(
            self.config.http_protocol_class,
            config=self.config,
            server_state=self.server_state,
            app_state={},
        )
        self.servers = [await self._server(protocol, each) for each in sockets or ()]
        self.started = True

    async def _server(
        self, protocol: Callable[[], asyncio.Protocol], listening: socket.socket
    ) -> Any:  # noqa: ANN401 - asyncio's server, or what stands in for it
        if self._tls is not None:
            limits = HandshakeLimits(self._limits.head_s, _handshakes_allowed())
            return Handshakes(listening, self._tls, protocol, limits)
        loop = asyncio.get_running_loop()
        return await loop.create_server(protocol, sock=listening, backlog=BACKLOG)


class Listening:
    """A port that is taken: connections wait for a server. ``url`` is where it is reached."""

    def __init__(self, settings: HttpSettings) -> None:
        """Raises PortBusy, and ConfigError for a certificate that cannot be used."""
        self.tls = tls_of(settings)
        self.socket = _listen(settings)
        host, port = self.socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if self.tls else 'http'}://{shown}:{port}"
        if not self.tls and not is_loopback(settings.host):
            log.warning("http_without_tls", url=self.url, expected=EXPECTED_PROXY)


class HttpServer:
    """Serves on a port that is taken, until `stop`."""

    def __init__(
        self, core: Core, operations: Operations, listening: Listening, access: Access
    ) -> None:
        settings = core.settings.http
        connections = core.visitors.connections = connections_of(settings)
        app = create_app(core, operations, access)
        tokens = access.tokens is not None
        self._server = server_of(app, settings, listening.tls, connections, tokens=tokens)
        self._socket = listening.socket
        self._stopped = asyncio.Event()

    async def serve(self) -> None:
        """Serve until `stop` is called."""
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Take no more requests, let those under way end (`GOODBYE_S` at most), and close."""
        self._server.should_exit = True
        if self._server.started:
            await self._stopped.wait()
        self._socket.close()


def server_of(
    app: Any,  # noqa: ANN401 - an ASGI application
    settings: HttpSettings,
    tls: ssl.SSLContext | None,
    connections: Shares,
    *,
    tokens: bool,
) -> uvicorn.Server:
    """A web server that runs ``app`` within the bounds of the settings.

    Without ``tokens`` the origin check refuses what a proxy has forwarded, so no client is looked
    for in its headers.
    """
    limits = ConnectionLimits(head_s=settings.head_timeout_s, body_s=settings.body_timeout_s)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=False,
        proxy_headers=tokens,
        headers=RESPONSE_HEADERS,
        http=partial(BoundedProtocol, limits, connections, Shares(PROBING, PROBING)),  # type: ignore[arg-type]  # called like a class
        ws="none",
        loop="none",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GOODBYE_S,
    )
    return _Server(config, tls, limits)


def connections_of(settings: HttpSettings) -> Shares:
    """How many connections may be open, in all and of one client."""
    handshakes = _handshakes_allowed() if settings.tls_cert else 0
    return Shares(connections_allowed() - handshakes, settings.max_connections_per_client)


def _handshakes_allowed() -> int:
    """At most a quarter of all connections may be about to begin."""
    return min(HANDSHAKES, connections_allowed() // 4 + 1)


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
