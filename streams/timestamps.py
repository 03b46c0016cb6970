"""A time as text: RFC 3339 in UTC, with a Z at its end."""

from datetime import UTC, datetime
from typing import Literal


def rfc3339(at: float, precision: Literal["auto", "milliseconds", "seconds"] = "auto") -> str:
    """``at``, in seconds since the epoch; ``auto`` shows microseconds unless they are zero."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec=precision).replace("+00:00", "Z")
