"""The transport of one answer, on which the head waits for what follows it in the same turn.

uvicorn writes the head and the body of an answer separately, and uvloop gives each write to the
system at once. Joined they cost one call of the system instead of two, and wake the client once.
"""

import asyncio
from collections.abc import Iterable
from typing import Any


class HeldHead:
    """An asyncio transport; its first write is held until the next one or the loop's next turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        self._is_first = True

    def write(self, data: bytes) -> None:
        """See asyncio."""
        if self._is_first:
            self._is_first = False
            self._held = data
            self._loop.call_soon(self.flush)
            return
        if self._held:
            data, self._held = self._held + data, b""
        self._transport.write(data)

    def flush(self) -> None:
        """Send what is held; it is dropped where the connection is closing."""
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)

    def writelines(self, data: Iterable[bytes]) -> None:
        """See asyncio."""
        self.flush()
        self._transport.writelines(data)

    def close(self) -> None:
        """See asyncio."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - asyncio's own transport
        """Everything else is the connection's."""
        return getattr(self._transport, name)
