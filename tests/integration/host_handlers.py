"""Handlers for tests of worker host processes: they end them, hold them, and ask where they are."""

import asyncio
import ctypes
import os
import signal
import subprocess
import time

from holdfast_worker import AsyncTask, Task
from service.executor.handlers import TaskRun, handler
from service.signals.tracing.spans import calling

PATIENCE_S = 20.0
PR_GET_DUMPABLE = 3
_met: list[asyncio.Future[int]] = []


@handler("killed")
def killed(_: TaskRun) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@handler("exits")
def exits(_: TaskRun) -> None:
    os._exit(7)


@handler("segfaults")
def segfaults(_: TaskRun) -> None:
    ctypes.string_at(0)


@handler("where")
def where(task: TaskRun) -> int:
    """Its process, after some time."""
    task.cancelled.wait(task.input or 0)
    return os.getpid()


@handler("niceness")
def niceness(_: TaskRun) -> list[int]:
    """Its own, and that of a program that it starts."""
    program = subprocess.run(["/usr/bin/nice"], stdout=subprocess.PIPE, check=True)
    return [os.nice(0), int(program.stdout)]


@handler("process_niceness", pool="process")
def process_niceness(_: TaskRun) -> list[int]:
    return [os.nice(0)]


@handler("deaf")
def deaf(_: TaskRun) -> None:
    time.sleep(PATIENCE_S)


@handler("holds_loop")
async def holds_loop(_: TaskRun) -> None:
    time.sleep(PATIENCE_S)  # noqa: ASYNC251 - that is its fault


@handler("meets")
async def meets(_: TaskRun) -> int:
    """Ends when another one runs on the same loop."""
    if _met:
        _met.pop().set_result(os.getpid())
        return os.getpid()
    _met.append(asyncio.get_running_loop().create_future())
    return await asyncio.wait_for(_met[0], PATIENCE_S)


@handler("hoards")
def hoards(task: TaskRun) -> int:
    return len(bytearray(task.input))


@handler("dumpable")
def dumpable(_: TaskRun) -> int:
    return ctypes.CDLL(None).prctl(PR_GET_DUMPABLE)


@handler("says")
def says(task: TaskRun) -> None:
    task.log.warning("the key is %s", task.input)


@handler("calls")
def calls(task: TaskRun) -> str:
    with calling(task.traceparent, "https://example.org"):
        return "called"


@handler("steps")
def steps(task: Task) -> object:
    """Keeps two values; what the second is refused with is its error."""
    first = task.step("first", lambda: {"n": 1})
    task.checkpoint("second", task.input)
    return first


@handler("async_steps")
async def async_steps(task: AsyncTask) -> object:
    first = await task.step("first", lambda: {"n": 1})
    await task.checkpoint("second", task.input)
    return first
