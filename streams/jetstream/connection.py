"""The line to NATS: bytes out, raw deliveries in, questions with a time limit, and its health.

nats-py keeps the connection (handshake, TLS, pings, reconnecting, resubscribing). Our own traffic
takes a short way past it: messages are rendered here and handed to the socket, deliveries reach us
as raw bytes before any header is parsed or any queue is filled. That is what 60,000 facts per
second need, and it removes nats-py's pending limits, at which it would drop messages silently.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from nats import errors
from nats.aio.client import Client

from streams.jetstream.access import URL_ALONE, Credentials
from streams.jetstream.servers import OLDEST_VERSION, Servers, is_too_old, servers_of
from streams.log import LogUnavailable, TopologyMismatch

T = TypeVar("T")

# Subject, reply, headers (status line included, b"" when there are none), payload.
Deliver = Callable[[bytes, bytes, bytes, bytes], None]

RECONNECT_WAIT_S = 0.1
CANCEL_AGAIN_S = 0.02
PING_INTERVAL_S = 10
PING_LOOKS = 3
STATUS_AT = len(b"NATS/1.0 ")


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One answer: its header block (b"" for none) and its payload."""

    headers: bytes
    payload: bytes

    @property
    def status(self) -> bytes:
        """The three digits of a status message, or b"" for an ordinary one."""
        return status_of(self.headers)


class Lost(msgspec.Struct, frozen=True, gc=False):
    """No answer came; what was asked may or may not have been done."""

    reason: str


def status_of(headers: bytes) -> bytes:
    """The three digits of a status message (``NATS/1.0 404 ...``), or b"" for an ordinary one."""
    if headers[STATUS_AT - 1 : STATUS_AT] != b" ":
        return b""
    return headers[STATUS_AT : STATUS_AT + 3]


def render(subject: bytes, reply: bytes, lines: bytes, payload: bytes) -> bytes:
    """One publish command; ``lines`` are header lines, each ended by CRLF, or b"" for none."""
    if not lines:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
    size = len(lines) + len(b"NATS/1.0\r\n\r\n")
    return b"HPUB %b %b %d %d\r\nNATS/1.0\r\n%b\r\n%b\r\n" % (
        subject,
        reply,
        size,
        size + len(payload),
        lines,
        payload,
    )


class RawClient(Client):
    """nats-py's client with a way past its message objects, that does not give up.

    Relies on some of its internals: ``_process_msg``, ``_process_err``, ``_process_op_err``,
    ``_pending``, ``_transport``, ``_connect_command``, ``_send_ping``, ``_server_pool``,
    ``_current_server`` and ``_server_info``. The contract suite fails when a new nats-py moves
    them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._raw: dict[int, Deliver] = {}

    @property
    def takes_anyone(self) -> bool:
        """Whether the server has said that it asks for neither credentials nor a certificate."""
        said = self._server_info
        return bool(said) and not (said.get("auth_required") or said.get("tls_verify"))

    async def listen(self, subject: str, deliver: Deliver) -> int:
        """Subscribe ``deliver``, called on the read loop, so it must be quick; returns a handle."""
        handle = self._sid + 1
        self._raw[handle] = deliver
        await self.subscribe(subject)  # pyright: ignore[reportUnknownMemberType]
        return handle

    async def unlisten(self, handle: int) -> None:
        """Undo `listen`; a connection that is closed has forgotten it already."""
        self._raw.pop(handle, None)
        self._remove_sub(handle)
        if self.is_connected:
            await self._send_unsubscribe(handle)

    def write(self, commands: bytes) -> None:
        """Hand rendered commands to the socket; raises ConnectionError when there is none."""
        if not self.is_connected or self._transport is None:
            raise ConnectionError("not connected")
        if self._pending:
            # nats-py writes its own commands a turn of the loop later. A subscription among them
            # has to reach the server before the question whose answer it is to receive.
            commands = b"".join([*self._pending, commands])
            self._pending = []
            self._pending_data_size = 0
        try:
            self._transport.write(commands)
        except RuntimeError as error:
            # uvloop's error for a socket that has died before nats-py noticed.
            raise ConnectionError("the connection has just been lost") from error

    async def ping(self) -> "asyncio.Future[bool]":
        """Send a PING; what is returned is done when its PONG has come, and must not be cancelled.

        Raises an error of nats-py or OSError.
        """
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await self._send_ping(pong)  # pyright: ignore[reportUnknownMemberType]
        return pong

    @property
    def others(self) -> list[str]:
        """The URLs of the servers that it may connect to beside the one that it is connected to."""
        return [each.uri.geturl() for each in self._server_pool if each is not self._current_server]

    def drop(self, towards: str | None = None) -> bool:
        """Cut the socket, so that nats-py connects to another server; False if there is none.

        ``towards`` is the URL of the one to try first.
        """
        if not self.is_connected or not self.others:
            return False
        self._server_pool.sort(key=lambda each: each.uri.geturl() != towards)
        self.abort()
        return True

    def abort(self) -> None:
        """Cut the socket. nats-py closes one that has sent everything, or forgets it."""
        if (writer := getattr(self._transport, "_io_writer", None)) is not None:
            writer.transport.abort()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        deliver = self._raw.get(sid)
        if deliver is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        deliver(subject, reply, headers or b"", data)

    def _connect_command(self) -> bytes:
        # nats-py goes on in clear when a server named by tls:// offers no TLS.
        server = self._current_server
        if server and server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise errors.Error("the server offers no TLS, and its URL is tls://")
        return super()._connect_command()

    async def _process_err(self, err_msg: str) -> None:
        # nats-py closes for ever on most errors ("maximum payload violation", "authentication
        # expired"). A service has to outlive them: report the error, and connect anew.
        error = errors.Error(f"nats: {err_msg}")
        await self._error_cb(error)
        if "permissions violation" not in err_msg:
            await self._process_op_err(error)


async def _until_really_cancelled(coroutine: Coroutine[Any, Any, None]) -> None:
    """Await ``coroutine``; a cancellation is repeated until it has ended.

    nats-py waits for a refused connection with `asyncio.wait_for`, which before Python 3.12 loses
    a cancellation that comes together with the refusal. The client then tries on for ever.
    """
    task = asyncio.ensure_future(coroutine)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
        if not task.cancelled():
            task.exception()  # so that asyncio does not log it
        raise


class Connection:
    """A `RawClient` with an inbox of our own for answers, and a memory of how it is doing."""

    def __init__(self, client: RawClient, servers: Servers, access: Credentials, name: str) -> None:
        self._client = client
        self._servers = servers
        self._access = access
        self.names = access.names
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._prefix = client.new_inbox().encode() + b"."
        self._asked = 0
        self._single: dict[bytes, asyncio.Future[Reply | Lost]] = {}
        self._many: dict[bytes, Callable[[Reply | Lost], None]] = {}
        self._up = asyncio.Event()
        self._down_since: float | None = time.monotonic()
        self._watchers: set[Callable[[], None]] = set()
        self.last_error: str | None = None
        self._denied: str | None = None  # what the server said that this user may not do
        self.reconnects = 0

    @classmethod
    async def open(
        cls, url: str, *, name: str, timeout_s: float, access: Credentials = URL_ALONE
    ) -> "Connection":
        """Connect; raises LogUnavailable when there is no server within ``timeout_s``.

        Raises TopologyMismatch when the server is too old. ``url`` may name several servers,
        separated by commas. Once open it never gives up.
        """
        try:
            return await cls._open(servers_of(url), access, name, timeout_s)
        except ValueError as error:
            raise LogUnavailable(f"the URL of NATS {error}") from None

    @classmethod
    async def _open(
        cls, servers: Servers, access: Credentials, name: str, timeout_s: float
    ) -> "Connection":
        proof = access.options()
        client = RawClient()
        connection = cls(client, servers, access, name)
        try:
            async with asyncio.timeout(timeout_s):
                connecting = client.connect(
                    random.sample(servers.urls, len(servers.urls)),
                    dont_randomize=True,  # when one is left, the next one is another
                    user=servers.user,
                    password=servers.password,
                    token=servers.token,
                    name=name,
                    error_cb=connection._on_error,
                    disconnected_cb=connection._on_disconnected,
                    reconnected_cb=connection._on_reconnected,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]
                    connect_timeout=2,
                    ping_interval=PING_INTERVAL_S,
                    **proof,
                )
                await _until_really_cancelled(connecting)
                await client.listen(f"{connection._prefix.decode()}*", connection._on_answer)
        except asyncio.CancelledError:
            client.abort()
            await client.close()
            raise
        except (TimeoutError, OSError, errors.Error) as error:
            client.abort()
            await client.close()
            reason = connection.last_error or str(error) or type(error).__name__
            raise LogUnavailable(
                f"no NATS server at {','.join(servers.urls)} within {timeout_s:g} s: {reason}"
            ) from error
        version = str(client.connected_server_version)
        if is_too_old(version):
            await client.close()
            oldest = ".".join(map(str, OLDEST_VERSION))
            raise TopologyMismatch(f"nats-server {version} is too old, {oldest} or newer is needed")
        connection._rise()
        return connection

    @property
    def connected(self) -> bool:
        """Whether the server is there as far as this end knows."""
        return self._client.is_connected

    @property
    def server(self) -> str:
        """The address of the server that it is connected to, "" while there is none."""
        url = self._client.connected_url
        return f"{url.hostname}:{url.port}" if url is not None else ""

    @property
    def takes_anyone(self) -> bool:
        """Whether the server lets clients in that prove nothing, as far as it says."""
        return self._client.takes_anyone

    @property
    def down_s(self) -> float:
        """For how many seconds the server has been gone; 0 while it is there."""
        return 0.0 if self._down_since is None else time.monotonic() - self._down_since

    @property
    def max_payload(self) -> int:
        """The largest message the server takes, headers included, in bytes."""
        return self._client.max_payload

    async def until_connected(self, timeout_s: float) -> bool:
        """Wait for the server to be there; False when ``timeout_s`` went by first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change`` at every loss and return of the server; returns how to stop it."""
        self._watchers.add(on_change)
        return lambda: self._watchers.discard(on_change)

    async def answers_ping(self, within_s: float) -> bool:
        """Whether the server answers a PING in time; a line that is lost or made anew says yes."""
        lost = self.reconnects
        try:
            pong = await self._client.ping()
        except (errors.Error, OSError):
            return True
        for _ in range(PING_LOOKS):  # a loop that was held up misses one of them, not all
            await asyncio.wait([pong], timeout=within_s / PING_LOOKS)
            if pong.done():
                return True
        return not self.connected or self.reconnects != lost

    @property
    def others(self) -> list[str]:
        """The URLs of the servers that it could be connected to instead."""
        return self._client.others

    @asynccontextmanager
    async def beside(self, url: str, timeout_s: float) -> AsyncGenerator["Connection"]:
        """A connection to the server at ``url`` for a few questions. Raises LogUnavailable."""
        servers = msgspec.structs.replace(self._servers, urls=(url,))
        try:
            connection = await Connection._open(servers, self._access, self._name, timeout_s)
        except ValueError as error:
            raise LogUnavailable(str(error)) from None
        try:
            yield connection
        finally:
            await connection.close()

    def leave(self, reason: str, towards: str | None = None) -> None:
        """Connect to another server, if there is one; ``towards`` is the URL to try first."""
        if self._client.drop(towards):
            self.last_error = f"left a server: {reason}"

    def send(self, commands: bytes) -> None:
        """Hand rendered commands to the socket; raises ConnectionError when there is none."""
        self._client.write(commands)

    def expect(self, timeout_s: float) -> tuple[bytes, asyncio.Future[Reply | Lost]]:
        """A reply subject of its own, and the answer to come there; Lost after ``timeout_s``."""
        token = self._token()
        answer: asyncio.Future[Reply | Lost] = self._loop.create_future()
        self._single[token] = answer
        timer = self._loop.call_later(timeout_s, self._give_up, token, timeout_s)
        answer.add_done_callback(lambda _: self._forget(token, timer))
        return self._prefix + token, answer

    def collect(self, on_reply: Callable[[Reply | Lost], None]) -> tuple[bytes, Callable[[], None]]:
        """A reply subject for many answers, and how to stop listening to it."""
        token = self._token()
        self._many[token] = on_reply

        def forget() -> None:
            self._many.pop(token, None)

        return self._prefix + token, forget

    async def request(self, subject: str, payload: bytes = b"", *, timeout_s: float) -> Reply:
        """Ask once; raises LogUnavailable without a responder, or when no answer came in time."""
        reply, answer = self.expect(timeout_s)
        try:
            self.send(render(subject.encode(), reply, b"", payload))
        except ConnectionError as error:
            answer.cancel()
            raise LogUnavailable(f"NATS is not connected: {self.last_error}") from error
        match await answer:
            case Lost(reason):
                denied = f"; {self._denied}" if self._denied else ""
                raise LogUnavailable(f"no answer to {subject}: {reason}{denied}")
            case Reply() as found if found.status == b"503":
                of_domain = " or has no such domain (nats.domain)" if self.names.domain else ""
                raise LogUnavailable(
                    f"nothing answers {subject}: JetStream is not ready{of_domain}"
                )
            case Reply() as found:
                return found

    async def listen(self, subject: str, deliver: Deliver) -> int:
        """See `RawClient.listen`; survives reconnects. Raises LogUnavailable."""
        return await _or_unavailable(self._client.listen(subject, deliver))

    async def unlisten(self, handle: int) -> None:
        """Undo `listen`."""
        await _or_unavailable(self._client.unlisten(handle))

    def new_inbox(self) -> str:
        """A new subject that no other client uses."""
        return self._client.new_inbox()

    async def close(self) -> None:
        """Close the socket; callers that still wait for an answer get Lost."""
        try:
            await self._client.close()
        except asyncio.CancelledError:
            # During a reconnect nats-py cancels a future that it then awaits itself.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        finally:
            self._abandon("the connection was closed")

    def _token(self) -> bytes:
        self._asked += 1
        return b"%x" % self._asked

    def _on_answer(self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        token = subject[len(self._prefix) :]
        waiting = self._single.get(token)
        if waiting is not None:
            if not waiting.done():
                waiting.set_result(Reply(headers, payload))
            return
        collector = self._many.get(token)
        if collector is not None:
            collector(Reply(headers, payload))

    def _give_up(self, token: bytes, timeout_s: float) -> None:
        waiting = self._single.get(token)
        if waiting is not None and not waiting.done():
            waiting.set_result(Lost(f"no answer within {timeout_s:g} s"))

    def _forget(self, token: bytes, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._single.pop(token, None)

    def _abandon(self, reason: str) -> None:
        # Answers to what was asked on the old socket can never come: do not wait for time-outs.
        for waiting in list(self._single.values()):
            if not waiting.done():
                waiting.set_result(Lost(reason))
        for collector in list(self._many.values()):
            collector(Lost(reason))

    def _rise(self) -> None:
        self._down_since = None
        self._up.set()

    async def _on_error(self, error: Exception) -> None:
        self.last_error = str(error) or type(error).__name__
        if "permissions violation" in self.last_error.lower():
            self._denied = f"the server refuses it: {self.last_error}"

    async def _on_disconnected(self) -> None:
        self._up.clear()
        if self._down_since is None:
            self._down_since = time.monotonic()
        self.last_error = self.last_error or "the connection was lost"
        self._abandon("the connection was lost")
        self._tell()

    async def _on_reconnected(self) -> None:
        self.reconnects += 1
        self.last_error = None
        self._rise()
        self._tell()

    def _tell(self) -> None:
        for on_change in list(self._watchers):
            on_change()


async def _or_unavailable(wanted: Awaitable[T]) -> T:
    try:
        return await wanted
    except errors.Error as error:
        raise LogUnavailable(f"NATS is not connected: {error}") from error
