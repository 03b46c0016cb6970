"""The process of a worker host: how it is started, watched and ended."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress

from service.runtime import child_process
from service.runtime.wired_process import start_with_socket

END_S = 1.0  # how long it may take to end once its connection is closed
POLL_S = 0.01


class HostProcess:
    """A started process; ``connection`` is our end of its wire. Raises OSError.

    It ends when the thread that started it does. Nothing secret is in its command line.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._process, self.connection = start_with_socket(
            "service.executor.hosts.child", str(frame_bytes)
        )
        self.connection.setblocking(False)  # noqa: FBT003
        self._descriptor: int | None = None

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid

    def watch(self, ended: Callable[[], object]) -> None:
        """Call ``ended`` on the running loop when it ends.

        The end of its connection is not enough: a program of a handler may have that, too.
        """
        loop = asyncio.get_running_loop()

        def exited() -> None:
            self._unwatch(loop)
            ended()

        with suppress(AttributeError, OSError):  # then the connection's end has to do
            self._descriptor = os.pidfd_open(self.pid)
            loop.add_reader(self._descriptor, exited)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def end(self) -> None:
        """End it at once and wait for that, because the loop ends as well."""
        self._unwatch(asyncio.get_running_loop())
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)

    async def wait(self) -> None:
        """Wait for its end, which follows that of its connection, and make sure of it."""
        self._unwatch(asyncio.get_running_loop())
        waits = int(END_S / POLL_S)
        while self._process.poll() is None:
            waits -= 1
            if waits == 0:
                self._process.kill()
            await asyncio.sleep(POLL_S)

    def how_it_ended(self) -> str:
        """For the reports of its tasks and the log."""
        code = self._process.returncode
        if code == -signal.SIGKILL:
            return "the worker host process was killed (SIGKILL), most likely for its memory"
        if code < 0:
            return f"the worker host process ended by {signal.Signals(-code).name}"
        return f"the worker host process ended with code {code}"

    def resident_bytes(self) -> int:
        """The memory that it holds; any thread may ask."""
        return child_process.resident_bytes(self.pid)

    def _unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        if (descriptor := self._descriptor) is not None:
            self._descriptor = None
            loop.remove_reader(descriptor)
            os.close(descriptor)
