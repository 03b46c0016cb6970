"""How long the executor waits for handlers that must stop, and what a process may be sent."""

import msgspec


class ExecutorLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds that no setting changes; tests make them smaller.

    ``grace_s``: how long a cancelled handler is waited for before its attempt goes on without it.
    ``kill_after_s``: how long a handler's process may go on after it was asked to stop.
    ``frame_bytes``: the largest message between a handler's process and the executor.
    ``ping_s``: how often a worker host process is asked whether it still reads; it is replaced
    when it has said nothing in ``silent_pings`` such periods.
    """

    grace_s: float = 3.0
    kill_after_s: float = 2.0
    frame_bytes: int = 64 * 1024 * 1024
    ping_s: float = 5.0
    silent_pings: int = 4


LIMITS = ExecutorLimits()
