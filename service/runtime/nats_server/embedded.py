"""Keeps the embedded nats-server running: ready before it is used, restarted when it dies.

It is also restarted when it cannot write any more and its disk has room again
(`service.runtime.nats_server.write_errors`).

One thread owns the child from its first life to its last: it starts, waits and starts again. The
child dies with that thread (process.py), and the thread ends with the process.
"""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVarTuple

import structlog

from service.runtime.data_folder import FolderHolder, read_holder
from service.runtime.nats_server.credentials import user_url
from service.runtime.nats_server.process import (
    HOST,
    LIMITS,
    LOG_FILE,
    STOP_S,
    EmbeddedServerError,
    ServerLimits,
    ServerProcess,
    in_words,
    launch,
)
from service.runtime.nats_server.staging import Staging
from service.runtime.nats_server.write_errors import ServerLog, has_room
from service.runtime.supervision import Supervision
from streams.jetstream.permissions import READER
from streams.log import LogUnavailable

STORE_FOLDER = "nats"
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0
SETTLED_S = 60.0  # a server that lived this long starts the back-off again

Arguments = TypeVarTuple("Arguments")

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("holdfast.nats")


def log_of(data_dir: Path, holder: FolderHolder, user: str = READER) -> str:
    """The URL at which ``user`` reaches the log of a data folder's holder, with credentials.

    What the holder writes down has none; those of an embedded server are in the data folder.
    """
    return user_url(data_dir / STORE_FOLDER, holder.nats_url, user)


def log_of_running(data_dir: Path, user: str = READER) -> str:
    """As `log_of`, of the instance that holds the folder now. Raises LogUnavailable."""
    holder = read_holder(data_dir)
    if holder is None or not holder.nats_url:
        raise LogUnavailable("the instance that holds the data folder is still starting")
    return log_of(data_dir, holder, user)


class EmbeddedServer:
    """The supervised nats-server of a data folder.

    It puts batches together in a folder of its own in ``staging_dir``, if there is one: see
    `service.runtime.nats_server.staging`.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int,
        *,
        staging_dir: Path | None = None,
        limits: ServerLimits = LIMITS,
        disk_has_room: Callable[[Path], bool] = has_room,
    ) -> None:
        self.restarts = 0
        self.cannot_write: str | None = None  # why, as the server or `took_no_write` says
        self._folder = data_dir / STORE_FOLDER
        self._staging = Staging(self._folder, staging_dir) if staging_dir is not None else None
        self._port = port
        self._url = ""
        self._limits = limits
        self._disk_has_room = disk_has_room
        self._server: ServerProcess | None = None
        self._log_file = ServerLog(self._folder / LOG_FILE)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        """Where Holdfast connects, with its credentials; the same for all lives of the server."""
        return self._url

    @property
    def address(self) -> str:
        """Where the server listens, for printing; known after `start`."""
        return f"nats://{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id of the running server, None while there is none."""
        server = self._server
        return server.pid if server else None

    def took_no_write(self, reason: str) -> None:
        """Let it be restarted: it answers questions, but no write in a long time."""
        if self.cannot_write is None:
            self.cannot_write = reason

    async def start(self) -> str:
        """Start the server; `url` once JetStream answers. Raises `EmbeddedServerError`."""
        self._loop = asyncio.get_running_loop()
        first: asyncio.Future[None] = self._loop.create_future()
        self._stopping.clear()
        self._thread = threading.Thread(
            target=self._supervise, args=(first,), name="nats-server", daemon=True
        )
        self._thread.start()
        try:
            await asyncio.shield(first)
        except BaseException:
            await self.stop()
            raise
        return self.url

    def supervised_by(self, supervision: Supervision) -> None:
        """Let ``supervision`` watch the thread that keeps the server running."""
        if self._thread is not None:
            supervision.watch_thread(self._thread)

    async def stop(self) -> None:
        """End the server gracefully, by force after `STOP_S`; saying it twice is saying it once."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            # The thread has its own look at `_stopping` between a launch and its wait.
            if server := self._server:
                server.send(number)
                server.send(signal.SIGCONT)  # a paused process takes no other signal
            await asyncio.to_thread(thread.join, STOP_S)

    def _supervise(self, first: asyncio.Future[None]) -> None:
        """Start the server, wait for its end, start it again, until `stop`."""
        try:
            server = self._launch()
        except Exception as error:  # noqa: BLE001 - the caller of start() gets it
            self._tell(_fail, first, error)
            return
        self._tell(_succeed, first)
        backoff_s = FIRST_BACKOFF_S
        while server and not self._stopping.is_set():
            since = time.monotonic()
            reason = self._until_ended(server)
            self._server = None
            if self._stopping.is_set():
                return
            _log.error("nats_server_down", reason=reason)
            if time.monotonic() - since > SETTLED_S:
                backoff_s = FIRST_BACKOFF_S
            server, backoff_s = self._relaunch(backoff_s)
        if server:
            server.stop()
            self._server = None

    def _until_ended(self, server: ServerProcess) -> str:
        """Wait for the server's end, or end it when that lets it write again; answers why."""
        while (code := server.wait(self._limits.check_s)) is None:
            if self._staging is not None:
                self._staging.link()
            if (error := self._log_file.write_error()) is not None and self.cannot_write is None:
                _log.error("nats_server_cannot_write", reason=error)
                self.cannot_write = error
            if self.cannot_write is not None and self._disk_has_room(self._folder):
                server.stop()
                return f"nats-server {server.pid} is restarted: {self.cannot_write}"
        return f"nats-server {server.pid} ended with {in_words(code)}"

    def _launch(self) -> ServerProcess:
        self._log_file = ServerLog(self._folder / LOG_FILE)
        if self._staging is not None:
            self._staging.prepare()
        server = launch(
            self._folder, self._port, limits=self._limits, wait=self._stopping.wait, private=True
        )
        self._port = server.port
        self._url = server.service.with_credentials if server.service else server.url
        self._server = server
        self.cannot_write = None
        if self._staging is not None:
            self._staging.link()
        return server

    def _relaunch(self, backoff_s: float) -> tuple[ServerProcess | None, float]:
        """The server's next life (None: we are stopping) and the next back-off in seconds."""
        while not self._stopping.wait(backoff_s):
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
            try:
                server = self._launch()
            except (EmbeddedServerError, OSError) as error:
                _log.warning("nats_server_not_back", error=str(error), next_try_s=backoff_s)
                continue
            self.restarts += 1
            _log.warning("nats_server_restarted", url=self.address, restarts=self.restarts)
            return server, backoff_s
        return None, backoff_s

    def _tell(self, callback: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        """Call back on the loop of `start`; a loop that has closed needs to know nothing."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(callback, *arguments)


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
