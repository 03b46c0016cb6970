"""The one way a fact gets into the log: load, decide, append as expected, see it folded.

A lost race is not an error: wait until the fold has reached the winner, judge the command anew, and
give up as contended after a bound. A refusal is only as good as the state it was judged on: another
instance may have written what this one has not folded yet. So a refusal is judged a second time, on
a state that is at least as new as the log was after the first, and no await stands between reading
that state and judging by it. A fact that could not be read again is refused, never written.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from time import monotonic
from typing import Protocol, TypeVar

import msgspec

from streams.log import (
    NO_ORIGIN,
    Appended,
    Conflict,
    Draft,
    Log,
    LogFull,
    LogUnavailable,
    Origin,
    TooLarge,
    Unreadable,
)
from streams.plan.commands import (
    Cancel,
    Claim,
    Command,
    Complete,
    Expire,
    Finish,
    Forget,
    Overrun,
    OwnerCommand,
    Pause,
    Resume,
    Start,
    Submit,
)
from streams.plan.decide import decide
from streams.plan.decisions import Accept, Decision, Duplicate, Invalid, PlanExists, Refusal
from streams.plan.fold import forgets
from streams.plan.limits import FORGOTTEN_S
from streams.plan.outputs import digest_of, takes_long
from streams.plan.sizes import is_large
from streams.plan.state import Plan
from streams.timestamps import rfc3339

T = TypeVar("T")


class DecideLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one call."""

    tries: int = 8  # races that may be lost
    call_s: float = 15.0  # one append with its budget, and its fold; further tries must fit in


LIMITS = DecideLimits()


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

    def why_ignored(self, sequence: int, /) -> str | None:
        """Why the fact at ``sequence``, which is folded, was ignored; None if it counts."""
        ...

    async def catch_up(self) -> None:
        """Return once everything is folded that is in the log now. Raises LogUnavailable."""
        ...


class CommandAccepted(msgspec.Struct, frozen=True, gc=False):
    """The command's facts are on disk and folded; ``sequence`` is that of the last one."""

    sequence: int
    plan: Plan | None


class Contention(msgspec.Struct, frozen=True):
    """Every try lost its race; nothing was written, and the command may be repeated."""

    tries: int

    @property
    def detail(self) -> str:
        """What happened, in words."""
        return f"lost the race for this subject {self.tries} times in a row"


Outcome = CommandAccepted | Duplicate | Refusal | Contention


async def transact(
    command: Command,
    view: View,
    log: Log,
    origin: Origin = NO_ORIGIN,
    limits: DecideLimits = LIMITS,
) -> Outcome:
    """Carry out ``command``. Raises LogUnavailable, LogFull, TooLarge."""
    if isinstance(command, Complete) and takes_long(command.output):
        await asyncio.to_thread(digest_of, command)
    call = _Call(limits.call_s, monotonic())
    # A new plan is tried at expectation 0 before the log is asked whether the id is taken.
    plan = view.knows(command.plan_id)
    if plan is None and not isinstance(command, Submit):
        plan = await view.load(command.plan_id)
    while call.lost < limits.tries:
        if isinstance(command, Submit):
            decision = await _submission(command, plan, view, log, call)
        else:
            decision = decide(command, plan, view.now())
        if isinstance(decision, Accept):
            # A message that the fold ignores may stand above the last one that it counts.
            at_least = max(decision.expected, call.folded)
            expected = at_least if call.expired is None else call.expired
            draft = _draft(command, decision, expected, origin)
            try:
                # The first append has a time limit of its own; what follows a loss needs another.
                append = log.append(draft)
                answer = await (call.in_time(append) if call.lost else append)
            except Unreadable as error:
                return Invalid(str(error))
            if isinstance(answer, Conflict):
                await _lose(draft, answer.actual, view, call)
            # Ignored: a fact about the plan came between. The next decision says which.
            elif await view.folded(answer.sequence) is None:
                return CommandAccepted(answer.sequence, view.knows(command.plan_id))
            else:
                call.loses()
        elif call.caught_up or _stands(command, decision):
            return decision
        else:
            # Judged again whether or not that brings news: the fold may have moved since.
            await call.in_time(view.catch_up())
            call.caught_up = True
        plan = await view.load(command.plan_id)
    return Contention(limits.tries)


def _stands(command: Command, answer: Duplicate | Refusal) -> bool:
    """Whether what other instances have written meanwhile could not change the answer."""
    if isinstance(answer, Duplicate):
        # A state that another instance may have changed since; a result stays reported.
        return not isinstance(command, Pause | Resume | Cancel | Start)
    # A claim is offered by the board itself unless its owner chose the task; what daemons say is
    # tried again.
    if isinstance(command, Claim):
        return not command.chosen
    return isinstance(command, Submit | Finish | Forget | Expire | Overrun)


NotAppended = Conflict | LogUnavailable | LogFull | TooLarge
FirstTry = CommandAccepted | NotAppended | None


async def transact_together(
    wanted: Sequence[tuple[OwnerCommand | Claim, Origin]], view: View, log: Log
) -> list[FirstTry]:
    """The first try of many commands: one list of appends, and one wait for the fold.

    A Conflict, or None, where that settles nothing: `transact` judges such a command. So it does
    with all but the first command on a task. Raises LogUnavailable when the fold is not in time.
    """
    drafts: dict[int, Draft] = {}
    tasks: set[tuple[str, str]] = set()
    now = view.now()
    for place, (command, origin) in enumerate(wanted):
        plan, key = view.knows(command.plan_id), (command.plan_id, command.task_id)
        decision = None if plan is None or key in tasks else decide(command, plan, now)
        if isinstance(decision, Accept):
            tasks.add(key)
            drafts[place] = _draft(command, decision, decision.expected, origin)
    outcomes: list[FirstTry] = [None] * len(wanted)
    answers = await log.append_all(list(drafts.values()))
    last = max([each.sequence for each in answers if isinstance(each, Appended)], default=0)
    await view.folded(last)
    for place, answer in zip(drafts, answers, strict=True):
        if isinstance(answer, Appended):
            if view.why_ignored(answer.sequence) is None:
                plan = view.knows(wanted[place][0].plan_id)
                outcomes[place] = CommandAccepted(answer.sequence, plan)
        elif isinstance(answer, NotAppended):
            outcomes[place] = answer
    return outcomes


def _draft(command: Command, decision: Accept, expected: int, origin: Origin) -> Draft:
    return Draft(
        plan_id=command.plan_id,
        task_id=decision.task_id,
        expected=expected,
        events=decision.events,
        origin=origin,
    )


class _Call(msgspec.Struct, gc=False):
    """One call: when it ends, and what it has learned from the races that it lost."""

    call_s: float
    began_at: float  # by the monotonic clock
    lost: int = 0
    folded: int = 0  # the subject's last sequence, as the log named it, and the state contains it
    expired: int | None = None  # the same, where the last message that the fold knows has expired
    caught_up: bool = False  # whether the state is as new as the log was after the first refusal

    async def in_time(self, wanted: Awaitable[T]) -> T:
        """What is awaited, if that comes before the call's end; else raises LogUnavailable."""
        try:
            async with asyncio.timeout(self.began_at + self.call_s - monotonic()):
                return await wanted
        except TimeoutError:
            raise LogUnavailable(f"no certain answer within {self.call_s:g} s") from None

    def loses(self, tries: int = 1) -> None:
        """Note that a race was lost."""
        self.lost += tries
        self.expired = None


async def _submission(
    command: Submit, plan: Plan | None, view: View, log: Log, call: _Call
) -> Decision:
    """`decide`, and whether a new plan can have its id."""
    if plan is None and call.folded:
        taken = await call.in_time(_taken(command.plan_id, call.folded, log, view.now()))
        if taken is not None:
            return taken
    if is_large(command.plan):
        # In a thread: no fact of others changes the answer.
        return await asyncio.to_thread(decide, command, plan, view.now())
    return decide(command, plan, view.now())


async def _lose(draft: Draft, actual: int | None, view: View, call: _Call) -> None:
    """Fold what was first; a message that expired under the expectation costs no try."""
    if call.expired is None and actual is not None and actual < draft.expected:
        call.expired = actual
        return
    past = folds_past(draft.plan_id, draft.task_id, actual, view)
    overlooked = await call.in_time(past)
    call.loses(0 if overlooked and not call.folded else 1)
    call.folded = max(call.folded, actual or 0)


async def _taken(plan_id: str, folded: int, log: Log, now: float) -> PlanExists | None:
    """Why a new plan cannot have its id: a message at ``folded`` on its subject that makes none."""
    last = await log.last_of(plan_id)
    if last is None:
        return None  # it has just been removed
    if not forgets(last):
        stands = f"the message at sequence {folded} on its subject is no plan"
        return PlanExists(f"the id '{plan_id}' cannot be used: {stands}")
    until = last.at + FORGOTTEN_S
    if now >= until:
        return None
    return PlanExists(
        f"the id '{plan_id}' belongs to a plan that was forgotten; it can be used again from "
        f"{rfc3339(until, 'seconds')} on"
    )


async def folds_past(plan_id: str, task_id: str | None, actual: int | None, view: View) -> bool:
    """Wait until ``actual`` is folded; whether the task does not count that message as its own.

    Raises LogUnavailable.
    """
    await (view.catch_up() if actual is None else view.folded(actual))
    plan = view.knows(plan_id)
    task = plan.tasks.get(task_id or "") if plan is not None else None
    return task is not None and actual is not None and task.subject_sequence < actual
