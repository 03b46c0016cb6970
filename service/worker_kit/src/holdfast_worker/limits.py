"""The bounds and times of a worker; tests pass in smaller ones."""

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds, sizes in bytes.

    ``wait_s``: how long one claim waits at the server. ``grace_s``: how long a cancelled handler
    may take to end before its attempt is reported without it. ``gather_s``: how long the next claim
    waits for handlers that have just begun, so that short ones free their slots together.
    ``drain_s``: how long tasks may run on after SIGTERM. ``goodbye_s``: how long the last results,
    and the goodbye, are tried at the end. ``report_s``: how long a result is tried again while the
    server does not answer. ``longest_pause_s``: between two tries; what is refused for longer while
    the server accepts other requests no longer goes out with others. ``batch`` and ``batch_bytes``:
    of one request. ``interpreter_held_s``: a delay of the worker's own loop that is logged.
    """

    wait_s: float = 20.0
    grace_s: float = 5.0
    gather_s: float = 0.003
    drain_s: float = 10.0
    goodbye_s: float = 5.0
    report_s: float = 600.0
    progress_s: float = 0.2
    first_pause_s: float = 0.05
    longest_pause_s: float = 5.0
    request_s: float = 10.0
    batch: int = 500
    batch_bytes: int = 900_000
    interpreter_held_s: float = 1.0


LIMITS = Limits()
