"""Prints one line on the terminal for each plan that has ended, a few per second at most."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from service.runtime.terminal import on_one_line
from streams.log import Fact
from streams.plan.events import Finished
from streams.plan.state import Plan

PER_SECOND = 10
MINUTE_S = HOUR_MIN = 60
NAME_CHARACTERS = 60

PlanOf = Callable[[str], Plan | None]
Say = Callable[[str], None]


class PlanEnds:
    """Listens to the fold on the loop of its caller; more ends than `PER_SECOND` are counted."""

    def __init__(self, plan_of: PlanOf, say: Say, *, but: str = "") -> None:
        """``but`` is the id of a plan whose end is said elsewhere."""
        self._plan_of = plan_of
        self._say = say
        self._but = but
        self._room = PER_SECOND
        self._unsaid: Counter[str] = Counter()
        self._next: asyncio.TimerHandle | None = None

    def folded(self, fact: Fact) -> None:
        """Say or count the end of a plan."""
        if fact.plan_id == self._but or not isinstance(fact.event, Finished):
            return
        if self._room:
            self._room -= 1
            self._say(_line(fact, fact.event.status, self._plan_of(fact.plan_id)))
        else:
            self._unsaid[fact.event.status] += 1
        if self._next is None:
            self._next = asyncio.get_running_loop().call_later(1, self._begin_second)

    def _begin_second(self) -> None:
        self._next = None
        self._room = PER_SECOND
        if self._unsaid:
            each = ", ".join(f"{count:,} {status}" for status, count in self._unsaid.items())
            self._say(f"  and {self._unsaid.total():,} more plans ended within a second: {each}")
            self._unsaid.clear()


def _line(fact: Fact, status: str, plan: Plan | None) -> str:
    at = datetime.fromtimestamp(fact.at).astimezone()
    said = f"  {at:%H:%M:%S}.{at.microsecond // 1000:03}  {fact.sequence:>5}  plan ended       "
    said += f"{on_one_line(fact.plan_id)}: {status}"
    if plan is None:
        return said
    tasks = len(plan.tasks)
    said += f" in {_duration(fact.at - plan.created_at)}, {tasks:,} task{'s' * (tasks != 1)}"
    if failed := plan.counts["FAILED"]:
        said += f", {failed:,} of them FAILED"
    name = on_one_line(plan.spec.name)
    return f"{said}: {name[:NAME_CHARACTERS]}" if name else said


def _duration(seconds: float) -> str:
    """As `0.4 s`, `2 min 5 s` or `3 h 12 min`."""
    if seconds < MINUTE_S:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), MINUTE_S)
    if minutes < HOUR_MIN:
        return f"{minutes} min {rest} s"
    return f"{minutes // HOUR_MIN:,} h {minutes % HOUR_MIN} min"
