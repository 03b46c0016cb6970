"""What a serving process asks of Python and the system: rare collections, short turns, many files.

Each value was measured: Python's own defaults suit scripts, not loops that share an interpreter
with user code.
"""

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

YOUNG, MIDDLE, OLD = 10_000, 1, 1_200  # Python's own thresholds are 700, 10, 10
MANY_FILES = 1_000_000  # where the system sets no limit
SWITCH_INTERVAL_S = 0.0005  # Python's own is 0.005
NICE = 10  # of processes that run handlers, more than the service's own
M_MMAP_THRESHOLD = -3  # malloc.h
RESERVED_FILES = 64  # of the system's limit, for children, databases and probes
LARGE_BLOCK_BYTES = 128 * 1024  # glibc's own threshold before it raises it
OTHER_FILES = 1_000  # files for everything but event streams, or half of what there is


def collect_seldom() -> None:
    """Set the garbage collector of a process that serves; objects that exist now are never walked.

    What the fold makes has no reference cycles: plans, tasks and facts are freed by their counts.
    Measured, the collector's walks cost a tenth of a rebuild and milliseconds of the loop. A walk
    holds the loop for as long as there are new objects: 100,000 took 16 to 20 ms, 20,000 take 4.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)


def give_large_blocks_back() -> None:
    """Let large blocks of memory go back to the system as soon as they are freed.

    glibc does so until the first of them is freed; then it puts blocks of that size among the small
    ones, and what they leave cannot be given back. Measured: 1,000 plans that had ended, each with
    an output of 300 kB, left a process of 416 MB, and 140 MB with a fixed threshold.
    """
    with suppress(OSError, AttributeError):  # another C library, which does it its own way
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


class _Collector:
    """Python's search for cycles, off while any block of any thread wants it so."""

    def __init__(self) -> None:
        self._changing = Lock()
        self._blocks = 0
        self._was_on = False

    def stop(self) -> None:
        with self._changing:
            if not self._blocks:
                self._was_on = gc.isenabled()
                gc.disable()
            self._blocks += 1

    def go_on(self) -> None:
        with self._changing:
            self._blocks -= 1
            if self._was_on and not self._blocks:
                gc.enable()


_COLLECTOR = _Collector()


@contextmanager
def uncollected() -> Generator[None]:
    """No search for cycles inside the block; for bounded work that makes none."""
    _COLLECTOR.stop()
    try:
        yield
    finally:
        _COLLECTOR.go_on()


def switch_often() -> None:
    """Let threads take turns every 0.5 ms.

    A handler that computes in pure Python gives the interpreter up only when the switch interval
    has passed. With N such handlers a loop that wakes waits for up to N intervals, several times
    per request or heartbeat. Measured: eight of them at Python's 5 ms cost 24 lost leases of 3 s in
    five seconds, and none at 0.5 ms. Worker host processes keep such handlers out of this one.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def give_way() -> None:
    """Let the service and nats-server go first where cores are short; for the start of a process.

    Its threads and its programs inherit that. Where a core is free it costs nothing, and a process
    that others keep busy still gets a tenth of it.
    """
    os.nice(NICE)


def connections_allowed() -> int:
    """How many connections may be open beside the files that are open now, with some in reserve.

    Past the system's limit `accept` fails for every client, and so does each new file of our own.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MANY_FILES if soft == resource.RLIM_INFINITY else soft
    return max(limit - sum(1 for _ in Path("/dev/fd").iterdir()) - RESERVED_FILES, 1)


def allow_streams(wanted: int) -> int:
    """Raise the limit of open files to what ``wanted`` event streams need; how many fit in the end.

    Each stream is an open file, and a usual login allows 1,024. Past that limit the system refuses
    every connection, probes included, so the configured limit of streams (a 503) has to come first.
    The hard limit belongs to the machine's owner and stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    needed = wanted + OTHER_FILES
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    limit = max(soft, allowed)
    return min(wanted, max(limit - OTHER_FILES, limit // 2))
