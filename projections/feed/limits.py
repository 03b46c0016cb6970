"""The bounds of one feed: bytes, events and times. Tests pass smaller ones."""

import msgspec


class FeedLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may cost, and what may be kept for clients that are behind."""

    ring_bytes: int = 16 * 1024 * 1024
    doubt_s: float = 1.5  # after which a cursor beyond the log's head is compared with it again

    # Writing to clients.
    run_bytes: int = 64 * 1024  # written to a client before its socket is looked at
    fan_out_slice: int = 64  # clients written to before the loop is given back: about a millisecond
    pending_events: int = 20_000  # of a channel; its clients fetch more than that themselves
    pending_bytes: int = 16 * 1024 * 1024
    slow_s: float = 10.0  # after which a client that takes no bytes is ended

    # Reading the log for clients that are behind.
    reads: int = 4  # under way at once
    scanned_events: int = 1_000  # looked at for one write, whether they are wanted or not
    kept_bytes: int = 64 * 1024 * 1024  # of pages
    kept_s: float = 20.0  # also bounds how long an expired heartbeat may still be shown
    log_retry_s: float = 0.5


LIMITS = FeedLimits()
