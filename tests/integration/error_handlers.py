"""Handlers that get into real trouble, in processes of their own."""

import os
import resource

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
