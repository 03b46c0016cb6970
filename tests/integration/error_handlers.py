"""Handlers that get into real trouble, in processes of their own."""

import os
import resource
import struct
import sys

from service.executor.handlers import TaskRun, handler

ROOM_BYTES = 64 * 1024 * 1024


@handler("hungry", pool="process")
def hungry(_: TaskRun) -> int:
    """Wants more memory than its process may have."""
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: PTH123, SIM115
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, used + ROOM_BYTES))
    return len(bytearray(4 * ROOM_BYTES))


@handler("leaves", pool="process")
def leaves(_: TaskRun) -> None:
    os._exit(3)


def _garble(payload: bytes) -> None:
    """Writes past the contract, as a library with a wrong file descriptor does."""
    os.write(int(sys.argv[1]), payload)


@handler("garbles", pool="process")
def garbles(task: TaskRun) -> None:
    task.progress(os.getpid())
    _garble(struct.pack("!I", 4) + b"\xff}{,")


@handler("announces_too_much", pool="process")
def announces_too_much(task: TaskRun) -> None:
    task.progress(os.getpid())
    _garble(struct.pack("!I", 2**32 - 1))


@handler("long_error", pool="process")
def long_error(task: TaskRun) -> None:
    task.progress(os.getpid())
    raise ValueError("x" * 3_000_000 + "\udcff")


@handler("returns_much", pool="process")
def returns_much(task: TaskRun) -> str:
    task.progress(os.getpid())
    return "x" * task.input["bytes"]
