"""How often Python lets another thread run: more often than by default, for the loops' sake.

A handler that computes in pure Python gives the interpreter up only when the switch interval has
passed. With N such handlers a loop that wakes waits for up to N intervals, several times per
request or heartbeat: measured, eight of them at Python's 5 ms cost 24 lost leases of 3 s in five
seconds, and none at 0.5 ms. More than a few at once are held back by `service.executor.running.gate`.
"""

import sys

INTERVAL_S = 0.0005  # Python's own is 0.005


def switch_often() -> None:
    """Set the interval of a process that serves."""
    sys.setswitchinterval(INTERVAL_S)
