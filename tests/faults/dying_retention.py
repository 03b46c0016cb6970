"""The service, killed by itself (SIGKILL) right after one stage of forgetting plans; `DIE_AFTER`.

Usage: DIE_AFTER=STAGE python -m tests.faults.dying_retention serve …, as `python -m service serve`.
Without the variable nothing dies, and plans are forgotten in the same small steps.
"""

import os
import signal
import sys
from typing import Any

from projections.read_models import forgetting as list_of_forgotten
from service.archive.days import Archive
from service.cli.main import main
from service.daemons import retention
from service.daemons.removals import RemovalLimits
from service.daemons.retention import Retention, RetentionLimits
from streams.jetstream import forgetting
from streams.jetstream.forgetting import Purger
from streams.jetstream.log import JetStreamLog

# Where each stage is done, and the how manieth time kills. A plan's own subject is purged before
# the filter for its tasks is made.
STAGES: dict[str, tuple[Any, str, int]] = {
    "archived": (Archive, "sync", 1),
    "some facts are in the log": (retention, "transact", 3),
    "noted": (JetStreamLog, "note_forgotten", 1),
    "the beginning is removed": (Purger, "remove_beginning", 1),
    "half a plan is removed": (forgetting, "tasks_of", 1),
    "plans are removed": (Purger, "remove", 1),
    "written down": (list_of_forgotten, "settled", 1),
}
LIMITS = RetentionLimits(
    plans=4,
    period_s=0.2,
    removal=RemovalLimits(together=6, worth=2, alone=2, wait_s=0.5),
)


def die_after(owner: Any, name: str, times: int) -> None:
    """Kill this process once ``owner.name`` has done its work so often."""
    done = getattr(owner, name)
    left = [times]

    def count() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    async def later(*given: Any, **named: Any) -> Any:
        answer = await done(*given, **named)
        count()
        return answer

    def at_once(*given: Any, **named: Any) -> Any:
        answer = done(*given, **named)
        count()
        return answer

    is_async = name not in {"sync", "tasks_of"}
    setattr(owner, name, later if is_async else at_once)


if __name__ == "__main__":
    make: Any = Retention.__init__
    make.__kwdefaults__["limits"] = LIMITS
    if stage := os.environ.get("DIE_AFTER"):
        die_after(*STAGES[stage])
    sys.exit(main())
