"""The one way a fact gets into the log: load, decide, append as expected, see it folded.

A lost race is not an error: wait until the fold has reached the winner, judge the command anew, and
give up as contended after a bound.
"""

from typing import Protocol, assert_never

import msgspec

from streams.log import NOBODY, Appended, Conflict, Draft, Log, Origin
from streams.plan.commands import Command, Submit
from streams.plan.decide import Accept, Duplicate, Refusal, decide
from streams.plan.state import Plan

TRIES = 8


class View(Protocol):
    """The folded state that commands are decided on."""

    def now(self) -> float:
        """Log time, in seconds since the epoch."""
        ...

    def knows(self, plan_id: str) -> Plan | None:
        """The plan if it is in memory."""
        ...

    async def load(self, plan_id: str) -> Plan | None:
        """The plan, from memory or folded from the log; None when the log has none."""
        ...

    async def folded(self, sequence: int) -> str | None:
        """Wait until the fact at ``sequence`` is folded; answers why it was ignored, or None.

        Raises LogUnavailable when that takes longer than a bound.
        """
        ...


class Accepted(msgspec.Struct, frozen=True):
    """The command's facts are on disk and folded; ``sequence`` is that of the last one."""

    sequence: int
    plan: Plan | None


class Contention(msgspec.Struct, frozen=True):
    """Every try lost its race; nothing was written."""

    tries: int


Outcome = Accepted | Duplicate | Refusal | Contention


async def transact(
    command: Command, view: View, log: Log, origin: Origin = NOBODY, tries: int = TRIES
) -> Outcome:
    """Carry out ``command``. Raises LogUnavailable, LogFull, TooLarge.

    ``tries`` bounds how many races may be lost; a short-lived message that expired under the
    expectation (DESIGN §3) costs no try.
    """
    expired: int | None = None
    lost = 0
    # A new plan is tried at expectation 0 before the log is asked whether the id is taken.
    plan = view.knows(command.plan_id)
    if plan is None and not isinstance(command, Submit):
        plan = await view.load(command.plan_id)
    while lost < tries:
        decision = decide(command, plan, view.now())
        if not isinstance(decision, Accept):
            return decision
        draft = Draft(
            plan_id=command.plan_id,
            task_id=decision.task_id,
            expected=decision.expected if expired is None else expired,
            events=decision.events,
            origin=origin,
        )
        answer = await log.append(draft)
        match answer:
            case Appended(sequence):
                # Ignored: a fact about the plan came between. The next decision says which.
                if await view.folded(sequence) is None:
                    return Accepted(sequence, view.knows(command.plan_id))
                lost += 1
            case Conflict(actual):
                if expired is None and actual is not None and actual < draft.expected:
                    expired = actual
                    continue
                lost += 1
                await _catch_up(view, log, actual)
            case _:
                assert_never(answer)
        expired = None
        plan = await view.load(command.plan_id)
    return Contention(tries)


async def _catch_up(view: View, log: Log, actual: int | None) -> None:
    await view.folded((await log.state()).head if actual is None else actual)
