"""The service with a log that forgets heartbeats after seconds, and forgotten plans wholly so.

Usage: python -m tests.faults.short_memory serve …, as `python -m service serve …`.
"""

import sys
from typing import Any

from msgspec.structs import replace

from service.cli.main import main
from service.daemons.removals import RemovalLimits
from service.daemons.retention import Retention, RetentionLimits
from tests.faults.short_chatter import shorten_chatter

FORGOTTEN_S = 20.0  # until the id of a forgotten plan is free again
PERIOD_S = 1.0
WAIT_S = 2.0  # until facts are removed

if __name__ == "__main__":
    shorten_chatter()
    removal = RemovalLimits(forgotten_s=FORGOTTEN_S, wait_s=WAIT_S)
    limits = replace(RetentionLimits(), removal=removal, period_s=PERIOD_S)
    make: Any = Retention.__init__
    make.__kwdefaults__["limits"] = limits
    sys.exit(main())
