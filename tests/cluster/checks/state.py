"""What the log, the read models and the instances' own output must look like at the end."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tests.cluster.caller import SECRET
from tests.cluster.fold import Fold
from tests.cluster.record import History, Violation
from tests.cluster.work import HANG_UP_OWNER, PLAN_SECRET

SHOWN = 5  # of each difference
RELEASED_WITHIN_S = 5.0
LOST_SHARE = 0.1
# Pauses after a lost race and the standstill of claims beside a silent log each keep claims from
# spinning, so a run without one of them shows nothing: unit tests are there for each. Without both,
# one cut of 12 s lost 1,373 of 1,475 claims, against some ten of 150.
LOST_PER_FAULT = 300

SOUND = "the log holds no lease of two owners, and no plan finished twice"
EQUAL = "the read models of all instances are equal"
FOLDED = "the read models are what the log folds to"
RELEASED = "a claim whose asker has hung up is released at once"
RACES = "claims lose fewer than a tenth of their races, and do not spin"
LASTING = "no instance ends by itself"
DISCREET = "no instance prints a secret or an unhandled error"


def sound(history: History, fold: Fold) -> Iterator[Violation]:
    """See `SOUND`."""
    del history
    for wrong in fold.wrong:
        yield Violation(SOUND, wrong)


def equal(history: History, fold: Fold) -> Iterator[Violation]:
    """See `EQUAL`: row by row, against the first instance; but for rows newer than what was read.

    Daemons write on while one instance after the other is read: a time-out may end meanwhile.
    """
    del fold
    head = _head(history)
    if not history.views:
        return
    first, *others = history.views
    for other in others:
        for name in ("plans", "tasks", "executions"):
            one: Mapping[object, Any] = getattr(first, name)
            two: Mapping[object, Any] = getattr(other, name)
            keys = [
                key
                for key in {**one, **two}
                if one.get(key) != two.get(key) and _read(head, one.get(key), two.get(key))
            ]
            for key in keys[:SHOWN]:
                where = f"{name} {key} on instances {first.instance} and {other.instance}"
                yield Violation(EQUAL, f"{where}: {_difference(one.get(key), two.get(key))}")


def _head(history: History) -> int:
    return max((fact.sequence for fact in history.facts), default=0)


def _read(head: int, *rows: Any) -> bool:
    """Whether the log was read at least as far as these rows go."""
    return all(row is None or row.get("sequence", 0) <= head for row in rows)


def _difference(one: Any, two: Any) -> str:
    if one is None or two is None:
        return "one of them has no such row"
    fields = [field for field in one if one[field] != two.get(field)]
    return ", ".join(f"{field}: {one[field]} and {two.get(field)}" for field in fields)


def folded(history: History, fold: Fold) -> Iterator[Violation]:
    """See `FOLDED`: status, attempt and owner of every task on every instance."""
    head = _head(history)
    for views in history.views:
        wrong = 0
        for plan_id, plan in fold.plans.items():
            for task_id, task in plan.tasks.items():
                row = views.tasks.get((plan_id, task_id), {})
                seen = (row.get("status"), row.get("attempt"), row.get("owner"))
                wanted = (task.status, task.attempt, task.owner)
                if seen != wanted and _read(head, row) and (wrong := wrong + 1) <= SHOWN:
                    where = f"{plan_id}/{task_id} on instance {views.instance}"
                    yield Violation(FOLDED, f"{where} is shown as {seen}, the log says {wanted}")


def hang_ups_released(history: History, fold: Fold) -> Iterator[Violation]:
    """See `RELEASED`; judged while no fault lasts."""
    for (plan_id, task_id), leases in fold.leases.items():
        for lease in leases:
            hung_up = lease.owner.startswith(HANG_UP_OWNER)
            if not hung_up or lease.owner in history.answered_hang_ups:
                continue
            if not _calm(history, lease.claimed.at):
                continue
            ended = lease.ended
            released = (
                ended is not None
                and ended.type == "task.released"
                and ended.at - lease.claimed.at < RELEASED_WITHIN_S
            )
            if not released:
                where = f"{plan_id}/{task_id}, claimed at {lease.claimed.sequence}"
                yield Violation(RELEASED, where, lease.claimed.at)


def _calm(history: History, at: float) -> bool:
    """Whether no fault lasts at ``at`` or within the time that a release may take."""
    last = max((call.answered_at for call in history.calls), default=at)
    within = all(
        at + RELEASED_WITHIN_S < fault.began or at > fault.settled for fault in history.faults
    )
    return within and at + RELEASED_WITHIN_S < last


def races(history: History, fold: Fold) -> Iterator[Violation]:
    """See `RACES`: the share while nothing is wrong, beyond chance; the number per fault."""
    del fold
    lost = history.claims_lost - sum(fault.claims_lost for fault in history.faults)
    all_ = lost + history.claims_won - sum(fault.claims_won for fault in history.faults)
    by_chance = 3 * math.sqrt(all_ * LOST_SHARE * (1 - LOST_SHARE))
    if lost > LOST_SHARE * all_ + by_chance:
        yield Violation(RACES, f"{lost} of {all_} were lost")
    for fault in history.faults:
        if fault.claims_lost > LOST_PER_FAULT:
            yield Violation(RACES, f"{fault.claims_lost} were lost in {fault.name}", fault.began)


def lasting(history: History, fold: Fold) -> Iterator[Violation]:
    """See `LASTING`."""
    del fold
    for end in history.ends:
        what = f"instance {end.instance} ended with {end.exit_code}: {end.last_line}"
        yield Violation(LASTING, what, end.at)


def discreet(history: History, fold: Fold) -> Iterator[Violation]:
    """See `DISCREET`."""
    del fold
    for instance, output in history.output.items():
        for secret in (SECRET, PLAN_SECRET, "Traceback (most recent call last)"):
            if count := output.count(secret):
                yield Violation(DISCREET, f"instance {instance}: {secret!r}, {count} times")
