"""A worker that asks for work over a bare socket and hangs up while its claim is on the way."""

import asyncio
import json
import socket
from urllib.parse import urlsplit

from tests.faults.sse_client import reset


class WaitingClaim:
    """One claim request that waits for a task of a kind that does not exist yet."""

    def __init__(self, address: str, owner: str, kind: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname
        assert parts.port
        self._address = parts.hostname, parts.port
        body = json.dumps({"owner": owner, "kinds": [kind], "wait_s": 20}).encode()
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

    def hang_up(self) -> bool:
        """Reset the connection; whether an answer had come before."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except OSError:
            answered = False
        else:
            answered = True
        reset(self._socket)
        self._socket.close()
        return answered
