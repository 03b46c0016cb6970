"""The vocabulary of an answer to *why*: its codes, its shape, and what it is judged by."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from projections.board.places import LanePosition
from streams.plan.state import Task

Code = Literal[
    "dependency_pending",
    "join_waits",
    "delay",
    "retry_delay",
    "lane_behind",
    "next_in_lane",
    "no_worker",
    "workers_busy",
    "reserved",
    "plan_paused",
    "plan_failed",
    "lease_held",
    "lease_expired_unclaimed",
    "verdict_stale",
    "unreadable_fact",
    "ended",
]
"""Why something does not run. Codes for limits, budgets and approvals come with these."""

MOST_EXAMPLES = 5


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One reason. ``says`` is a sentence; ``next`` tells what would change it, and when.

    ``evidence`` holds the facts it rests on; ``evidence["sequences"]`` their log sequences.
    Times in it are RFC 3339, durations are seconds and end in ``_s``.
    """

    code: Code
    says: str
    evidence: dict[str, Any]
    next: str

    def __post_init__(self) -> None:
        """A fact that is evidence for two things is named once."""
        if "sequences" in self.evidence:
            self.evidence["sequences"] = list(dict.fromkeys(self.evidence["sequences"]))


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The answer in one sentence, and every reason, the one that holds first at the beginning.

    ``sequence`` is the log sequence of the board that was asked.
    """

    answer: str
    reasons: list[Reason]
    sequence: int = 0


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What lies outside of the plan: the time, the queue, and which workers ask.

    ``now`` is log time in seconds. ``asked`` tells when a worker last asked for a kind (log time;
    None: never seen), ``known_kinds`` are those that workers ask for, ``running`` counts live
    leases by kind, and ``standing`` a claimable task's place in its lane.
    """

    now: float
    asked: Callable[[str], float | None]
    known_kinds: Sequence[str]
    running: Mapping[str, int]
    standing: Callable[[Task], LanePosition | None]


def glance(task: Task) -> dict[str, Any]:
    """A task as one line of evidence."""
    return {"task_id": task.spec.id, "status": task.status, "sequence": task.sequence}
