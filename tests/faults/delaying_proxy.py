"""A TCP proxy on loopback that passes everything on, late on request: a slow network.

It runs on a thread of its own, so that a test may block. Bytes keep their order; only what comes
back from the server is late, as from a server that takes its time to answer.
"""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

CHUNK = 64 * 1024
IN_FLIGHT = 10_000  # chunks on their way back; a reader that stops then holds up the server


class DelayingProxy:
    """In front of ``server_url``; connect to `url`, set `delay_s`, `stop` it at the end."""

    def __init__(self, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 4222)
        self._scheme = parts.scheme
        self.delay_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._listening = self._ask(self._listen())

    @property
    def url(self) -> str:
        """Where clients connect instead."""
        return f"{self._scheme}://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        """Cut every connection and close the port."""
        self._ask(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _ask(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _end(self) -> None:
        self._listening.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        writers = [back]
        try:
            server, forth = await asyncio.open_connection(*self._server)
            writers.append(forth)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(client, forth))
                group.create_task(self._pass_back(server, back))
        except* (OSError, EOFError):  # without a server the client's connection is closed, too
            pass
        finally:  # also when it is cut while it still connects
            for writer in writers:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
        raise EOFError  # one end closed: so does the other

    async def _pass_back(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Late by `delay_s`, but at full width: many chunks may be on their way."""
        clock = asyncio.get_running_loop().time
        on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)

        async def arrive() -> None:
            while True:
                due, data = await on_its_way.get()
                await asyncio.sleep(max(due - clock(), 0))
                sink.write(data)
                await sink.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(arrive())
            while data := await source.read(CHUNK):
                await on_its_way.put((clock() + self.delay_s, data))
            raise EOFError
