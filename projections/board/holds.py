"""Back-off per task: a task whose claim has just lost its race is not offered for a moment.

Usually the winner's claim is folded by then, and the task is RUNNING. Where it still looks
claimable, something keeps claims from counting (a log without quorum, a clock that was set back);
to try again at once would write, or lose, thousands of claims a second.
"""

import msgspec

from streams.plan.state import Task

FIRST_S = 0.02
LONGEST_S = 2.0
MOST = 1_000  # tasks remembered; beyond it those that may be tried again are forgotten


class Hold(msgspec.Struct, frozen=True):
    """The claim of this attempt was lost ``lost`` times; the next one waits until log time."""

    attempt: int
    lost: int
    until: float


class Holds:
    """Which tasks wait, and until when."""

    def __init__(self) -> None:
        self._holds: dict[int, Hold] = {}

    def lost(self, task: Task, now: float) -> None:
        """Note that a claim on ``task`` was lost at log time ``now``."""
        last = self._holds.get(id(task))
        lost = last.lost + 1 if last is not None and last.attempt == task.attempt else 1
        if len(self._holds) >= MOST:
            self._holds = {key: hold for key, hold in self._holds.items() if hold.until > now}
        pause_s = min(FIRST_S * 2.0 ** (lost - 1), LONGEST_S)
        self._holds[id(task)] = Hold(task.attempt, lost, now + pause_s)

    def until(self, task: Task, now: float) -> float:
        """When ``task`` may be tried again; ``now`` if it may be at once."""
        hold = self._holds.get(id(task))
        if hold is None or hold.attempt != task.attempt:
            return now
        # Log time may have been set back: then the pause is over, not an hour long.
        return hold.until if now < hold.until <= now + LONGEST_S else now
