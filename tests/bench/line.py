"""Keep-alive HTTP/1.1 over a raw stream: a client too cheap to disturb what is measured."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec


class Line:
    """One connection; `post` sends a request and reads its answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._host = "{}:{}".format(*writer.get_extra_info("peername")).encode()

    @classmethod
    async def open(cls, port: int) -> "Line":
        """Connect to loopback."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**22))

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The decoded answer; anything but 2xx is an error."""
        status, answer = await self.ask(path, body)
        if status not in (200, 201):
            raise RuntimeError(path, status, answer)
        return answer

    async def ask(self, path: str, body: Mapping[str, Any] | None) -> tuple[int, Any]:
        """The status and the decoded answer to a POST of ``body``, or to a GET."""
        method, content = (b"GET", b"") if body is None else (b"POST", msgspec.json.encode(body))
        self._writer.write(
            b"%b %b HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b"
            % (method, path.encode(), self._host, len(content), content)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        start = lower.index(b"content-length:") + 15
        length = int(lower[start : lower.index(b"\r", start)])
        answer = msgspec.json.decode(await self._reader.readexactly(length))
        return int(head[9:12]), answer
