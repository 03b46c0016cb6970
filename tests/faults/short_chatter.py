"""The service with a log that forgets heartbeats and progress after seconds, not after a day.

Usage: python -m tests.faults.short_chatter serve …, as `python -m service serve …`.
"""

import sys
from typing import Any

from msgspec.structs import replace

from service.cli.main import main
from streams.jetstream.drafts import DEFAULT_LIMITS
from streams.jetstream.log import JetStreamLog

CHATTER_TTL_S = 4


def shorten_chatter() -> None:
    """Give every log that is connected to from now on that short memory."""
    limits = replace(DEFAULT_LIMITS, chatter_ttl_s=CHATTER_TTL_S)
    connect: Any = JetStreamLog.connect
    connect.__func__.__kwdefaults__["limits"] = limits


if __name__ == "__main__":
    shorten_chatter()
    sys.exit(main())
