"""A program: one instance whose API loop writes down each step that takes long.

Usage: ``python -m tests.integration.stepping_instance FOLDER FLOOR_MS``. The address stands in
``FOLDER/address``. Each step of the loop that takes at least the floor is one line of
``FOLDER/steps``: when it ended (`time.monotonic`), its milliseconds of the thread's processor time,
and where its task stands now. The loop is asyncio's own, whose steps can be timed from Python.
"""

import asyncio
import signal
import sys
import time
from asyncio import events
from pathlib import Path
from typing import Any, TextIO

from service.app import running
from service.runtime.tuning import collect_seldom, switch_often
from service.settings.loading import load_settings


def time_steps(steps: TextIO, floor_s: float) -> None:
    """Let every handle that a loop of this thread runs be timed from now on."""
    run = events.Handle._run  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def timed(handle: Any) -> None:
        began = time.thread_time()
        run(handle)
        took_s = time.thread_time() - began
        if took_s >= floor_s:
            where = _where(handle._callback)  # noqa: SLF001
            steps.write(f"{time.monotonic()} {took_s * 1000:.1f} {where}\n")
            steps.flush()

    events.Handle._run = timed  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]


def _where(callback: Any) -> str:
    """The coroutines of the step's task, the outermost first, each with its line."""
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return repr(callback).replace("\n", " ")
    names: list[str] = []
    at: Any = task.get_coro()
    while at is not None and hasattr(at, "cr_code"):
        line = at.cr_frame.f_lineno if at.cr_frame is not None else "ended"
        names.append(f"{at.cr_code.co_qualname}:{line}")
        at = at.cr_await
    return " > ".join(names)


async def main(folder: Path, floor_s: float) -> None:
    """Serve until SIGTERM."""
    flags = {"data_dir": str(folder / "data"), "http.port": 0, "nats.port": 0}
    settings = load_settings(
        environment={}, directory=folder, flags=flags | {"sample.enabled": False}
    )
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with running(settings, frozenset({"api", "daemons"})) as instance:
        collect_seldom()
        with (folder / "steps").open("w") as steps:
            time_steps(steps, floor_s)
            (folder / "address.new").write_text(instance.http_url)
            (folder / "address.new").rename(folder / "address")
            await ended.wait()


if __name__ == "__main__":
    switch_often()
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]) / 1000))
