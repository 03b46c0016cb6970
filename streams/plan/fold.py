"""Folds a plan's facts, in the order of the log, into the plan: the one way from facts to state.

A fact that cannot be folded is not fatal: it is ignored with the reason, and the plan remembers
that no write may follow it. Every instance, and every rebuild, does the same with the same facts.
"""

from collections.abc import Generator, Iterable
from typing import NamedTuple

from streams.log import BadFact, Fact
from streams.plan.events import Forgotten, Submitted
from streams.plan.evolve import begin, evolving, in_one_go, mark_unreadable
from streams.plan.state import Plan
from streams.subjects import split_subject


class Tombstone(NamedTuple):
    """The `forgotten` fact of a plan: where it stands, and its log time (seconds since the epoch).

    Other facts of the plan that stand before it count no more. ``reach`` is the sequence of the
    last of them, if the plan was in memory; else 0.
    """

    plan_id: str
    sequence: int
    at: float
    reach: int = 0


def fold_plan(facts: Iterable[Fact | BadFact]) -> Plan | None:
    """The plan that ``facts`` make; None when they make none that can be folded."""
    plan: Plan | None = None
    for fact in facts:
        plan = fold_next(plan, fact)
    return plan


def fold_next(plan: Plan | None, fact: Fact | BadFact) -> Plan | None:
    """The plan after its next fact: begun, changed in place, or forgotten (None)."""
    if forgets(fact):
        return None
    if plan is not None:
        fold_fact(plan, fact)
        return plan
    begun = begin_plan(fact)
    return None if isinstance(begun, str) else begun


def forgets(fact: Fact | BadFact | None) -> bool:
    """Whether the plan is unknown from this fact on."""
    return isinstance(fact, Fact) and isinstance(fact.event, Forgotten)


def last_sequence(plan: Plan) -> int:
    """The sequence of the last fact on any of the plan's subjects, before an unreadable one."""
    subjects = [plan, *plan.tasks.values()]
    unreadable = [each.unreadable_at for each in subjects if each.unreadable_at is not None]
    return min(unreadable) - 1 if unreadable else max(each.subject_sequence for each in subjects)


def begin_plan(fact: Fact | BadFact | None) -> Plan | str:
    """The plan that ``fact`` starts, or why it starts none."""
    if not isinstance(fact, Fact) or not isinstance(fact.event, Submitted):
        return "it is no 'submitted' fact"
    try:
        return begin(
            fact.plan_id,
            fact.event,
            sequence=fact.sequence,
            at=fact.at,
            traceparent=fact.origin.traceparent,
            tracestate=fact.origin.tracestate,
        )
    except KeyError as missing:  # `decide` lets no such plan into the log
        return f"submitted by hand: a task names {missing}, which is not in the plan"
    except Exception as error:  # noqa: BLE001 - one fact must not stop the fold of all others
        return f"it cannot be folded: {error!r}"


def fold_fact(plan: Plan, fact: Fact | BadFact) -> str | None:
    """Fold one later fact of ``plan``, in place; answers why it was ignored, or None."""
    return in_one_go(folding(plan, fact))


def folding(plan: Plan, fact: Fact | BadFact) -> Generator[None, None, str | None]:
    """`fold_fact` in short steps: see `streams.plan.evolve.evolving`."""
    if isinstance(fact, BadFact):
        _, task_id = split_subject(fact.subject) or ("", None)
        mark_unreadable(plan, task_id, sequence=fact.sequence)
        return fact.reason
    try:
        return (
            yield from evolving(plan, fact.task_id, fact.event, sequence=fact.sequence, at=fact.at)
        )
    except Exception as error:  # noqa: BLE001 - one fact must not stop the fold of all others
        mark_unreadable(plan, fact.task_id, sequence=fact.sequence)
        return f"it cannot be folded: {error!r}"
