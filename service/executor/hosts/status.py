"""How a worker host process is doing."""

from typing import Literal

import msgspec

HostState = Literal["starting", "ready", "silent", "retiring"]


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker host process and its handlers; of ``running``, ``overrunning`` ignore their stop.

    ``pid`` is 0 before its start. A silent host does not answer; a retiring one gets no more tasks
    and is ended when what it runs has ended or ignores its stop.
    """

    pid: int
    state: HostState
    running: int
    overrunning: int
    memory_bytes: int
