"""Programs that a measurement starts beside itself: each has a bound, and none outlives it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from service.runtime.child_process import dying_with_parent

WITHIN_S = 300.0


@asynccontextmanager
async def process_of(
    module: str,
    *arguments: object,
    python: Path | str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """``module`` as a process in a group of its own, which is killed when the block ends."""
    process = await asyncio.create_subprocess_exec(
        *dying_with_parent(str(python), "-m", module, *map(str, arguments)),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env=os.environ | (environment or {}), start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def answer_of(
    module: str,
    *arguments: object,
    within_s: float = WITHIN_S,
    python: Path | str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """What ``module`` prints as its last line, in JSON.

    Raises TimeoutError after ``within_s``, and RuntimeError when it ends with another code than 0.
    """
    program = process_of(module, *arguments, python=python, environment=environment)
    async with asyncio.timeout(within_s), program as process:
        out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{module} {arguments} ended with {process.returncode}")
    return json.loads(out.splitlines()[-1])
