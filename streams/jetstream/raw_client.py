"""nats-py's client without its message objects; errors and cancellations do not end it.

nats-py keeps the connection (handshake, TLS, pings, reconnecting, resubscribing). Our own traffic
takes a short way past it: rendered commands are handed to the socket, deliveries reach us as raw
bytes before any header is parsed or any queue is filled. That is what 60,000 facts per second
need, and it removes nats-py's pending limits, at which it would drop messages silently.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from nats import errors
from nats.aio.client import Client

from streams.jetstream.messages import Deliver
from streams.jetstream.parser import MessageParser

CANCEL_AGAIN_S = 0.02


class RawClient(Client):
    """nats-py's client with a way past its message objects, that does not give up.

    Relies on some of its internals: ``_ps``, ``_process_msg``, ``_process_err``,
    ``_process_op_err``, ``_pending``, ``_transport``, ``_connect_command``, ``_send_ping``,
    ``_server_pool``, ``_current_server``, ``_reconnection_task``, ``_subs`` and ``_server_info``.
    The contract suite fails when a new nats-py moves them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._raw: dict[int, Deliver] = {}
        self._ps = MessageParser(self, self._raw)

    @property
    def takes_anyone(self) -> bool:
        """Whether the server has said that it asks for neither credentials nor a certificate."""
        said = self._server_info
        return bool(said) and not (said.get("auth_required") or said.get("tls_verify"))

    @property
    def server_version(self) -> str:
        """The release that the server names, such as "2.12.1"."""
        return str(self._server_info.get("version", ""))

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

    def subscriptions(self) -> bytes:
        """The commands that subscribe to all once more; a server ignores what it has already."""
        subs = self._subs.items()
        return b"".join(b"SUB %b  %d\r\n" % (sub.subject.encode(), sid) for sid, sub in subs)

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

    async def close(self) -> None:
        """Close for ever; a reconnect that is under way ends, too."""
        try:
            await super().close()
        finally:
            reconnecting = self._reconnection_task
            if reconnecting is not None and reconnecting is not asyncio.current_task():
                await _until_ended(reconnecting)

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
        deliver([(subject, reply, headers or b"", data)])

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


async def until_really_cancelled(coroutine: Coroutine[Any, Any, None]) -> None:
    """Await ``coroutine``; a cancellation is repeated until it has ended.

    nats-py waits for a refused connection with `asyncio.wait_for`, which before Python 3.12 loses
    a cancellation that comes together with the refusal. The client then tries on for ever.
    """
    task = asyncio.ensure_future(coroutine)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await _until_ended(task)
        raise


async def _until_ended(task: asyncio.Future[None]) -> None:
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
    if not task.cancelled():
        task.exception()  # so that asyncio does not log it
