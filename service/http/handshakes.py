"""Accepts TLS connections: those whose handshake has not ended are bounded in number and in time.

asyncio gives a connection to its protocol when the handshake has ended. Until then it would be
counted nowhere, and clients that send nothing could take all files that the process may open.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable

import msgspec

AGAIN_S = 0.1  # after an accept that failed, such as for want of files


class HandshakeLimits(msgspec.Struct, frozen=True):
    """How many handshakes may be under way, and how long one may take."""

    within_s: float
    most: int


class Handshakes:
    """A server, as far as uvicorn asks one: it listens until it is closed."""

    def __init__(
        self,
        listening: socket.socket,
        tls: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        limits: HandshakeLimits,
    ) -> None:
        """``make`` makes the protocol of a connection whose handshake has ended."""
        self.sockets = (listening,)
        self._tls = tls
        self._make = make
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._pending: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Accept no more; handshakes under way end, connections stay."""
        for task in (self._accepting, *self._pending):
            task.cancel()

    async def wait_closed(self) -> None:
        """Return when all handshakes have ended."""
        await asyncio.gather(self._accepting, *self._pending, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(self.sockets[0])
            except OSError:
                await asyncio.sleep(AGAIN_S)
                continue
            if len(self._pending) >= self._limits.most:
                self._end_oldest()
            task = self._loop.create_task(self._encrypt(connection))
            self._pending[task] = None
            task.add_done_callback(self._ended)

    def _end_oldest(self) -> None:
        """A handshake takes milliseconds, so the one that has waited longest will not end."""
        oldest = next(iter(self._pending))
        del self._pending[oldest]
        oldest.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._pending.pop(task, None)

    async def _encrypt(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make, connection, ssl=self._tls, ssl_handshake_timeout=self._limits.within_s
            )
        except OSError:  # no TLS, too slow, gone
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise
