"""The ground of the event stream's measurements: an instance in a process of its own.

What it costs is read from outside: its CPU and its memory, not those of the measuring process.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
import psutil

from tests.faults.service_process import ServiceProcess

GENERATOR_S = 120.0


class Cost:
    """CPU seconds of one process between two looks at it."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.restart()

    def restart(self) -> None:
        """Count from here."""
        self._cpu, self._at = self._spent(), time.perf_counter()

    @property
    def cpu_s(self) -> float:
        """CPU seconds since the start."""
        return self._spent() - self._cpu

    @property
    def busy(self) -> float:
        """The share of one core since the start."""
        return self.cpu_s / (time.perf_counter() - self._at)

    @property
    def memory_bytes(self) -> int:
        """What it holds now."""
        return self._process.memory_info().rss

    def _spent(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


@asynccontextmanager
async def service(nats_url: str) -> AsyncGenerator[ServiceProcess]:
    """One instance that only answers HTTP."""
    with tempfile.TemporaryDirectory() as folder:
        process = ServiceProcess(Path(folder) / "data", nats_url=nats_url, roles="api")
        try:
            yield await asyncio.to_thread(process.start)
        finally:
            await asyncio.to_thread(process.stop)


def port_of(process: ServiceProcess) -> int:
    """Where it listens."""
    return int(process.url.rsplit(":", 1)[1])


class Generator:
    """A process of clients: it says when they are there, and when told to stop what they saw."""

    def __init__(self, module: str, *arguments: object) -> None:
        self._command = [sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)]

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            await self.hear()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def hear(self) -> Any:
        """The next thing that it says."""
        if self._process.stdout is None:
            raise RuntimeError("it has no voice")
        async with asyncio.timeout(GENERATOR_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._command} ended")
        return msgspec.json.decode(line)

    async def ask(self) -> Any:
        """What it saw since it was last asked."""
        if self._process.stdin is None:
            raise RuntimeError("it has no ear")
        self._process.stdin.write(b"\n")
        return await self.hear()
