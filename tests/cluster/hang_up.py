"""A worker that asks for work over a bare socket and hangs up while its claim is on the way.

It closes its own direction only, and reads what still comes: so it knows for certain whether an
answer was sent. With a reset, an answer that the server sent a moment before would be lost unseen,
and the lease that was kept for it would look like a fault of the server.
"""

import asyncio
import json
import socket
from urllib.parse import urlsplit

ANSWER_S = 5.0
PIECE = 65_536


class Asker:
    """One claim request for a task of ``kind``, which may not exist yet; ``wait_s`` as asked."""

    def __init__(self, address: str, owner: str, kind: str, wait_s: float) -> None:
        parts = urlsplit(address)
        assert parts.hostname
        assert parts.port
        self._address = parts.hostname, parts.port
        body = json.dumps({"owner": owner, "kinds": [kind], "wait_s": wait_s}).encode()
        head = (
            f"POST /v1/claims HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._socket = socket.socket()
        self._socket.setblocking(False)  # noqa: FBT003

    async def ask(self) -> None:
        """Send the request; does not wait for the answer. Raises OSError."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, self._address)
        await loop.sock_sendall(self._socket, self._request)

    async def hang_up(self) -> bool:
        """Close the connection; False when it is certain that no answer was sent."""
        loop = asyncio.get_running_loop()
        with self._socket as connection:
            try:
                connection.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(ANSWER_S):
                    return bool(await loop.sock_recv(connection, PIECE))
            except TimeoutError:
                return True  # an instance that is frozen may answer later
            except OSError:
                return False
