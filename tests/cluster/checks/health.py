"""How long writes may be refused, and who must name a fault how soon, and until when."""

from collections.abc import Iterator
from itertools import pairwise

from tests.cluster.fold import Fold
from tests.cluster.ports import NUMBERS
from tests.cluster.record import Call, FaultRun, History, Readiness, Violation
from tests.cluster.watch import is_canary

REFUSED_S = 8.0  # on the majority's side
ELECTED_S = 3.0  # after the nodes have agreed on a leader, however long that took them
MOVED_S = 20.0  # at a node that is cut off or frozen, until the instance has left it
FORMED_S = 20.0  # from the end of a fault that left no quorum
CALM_S = 4.0  # while nothing is wrong
READY_NAMES_S = 3.0
DOCTOR_NAMES_S = 10.0
CLEARED_S = 20.0
OK = 200

BOUNDED = "writes are refused for at most 8 s on the majority's side, or 3 s after an election"
CALM = "no write is refused while nothing is wrong"
READY_NAMES = "an instance that takes no writes is not ready within 3 s"
DOCTOR_NAMES = "the doctor names a fault within 10 s"
CLEARED = "readiness and doctor are clear again after the fault"

# What the doctor calls a log, a node or an instance that does not do its work.
NAMES = frozenset(
    {
        "LogUnavailable",
        "NotReady",
        "ProjectionLagging",
        "DaemonLate",
        "CannotTell",
        "ApiDown",
        "ApiFrozen",
    }
)

Silence = tuple[float, float]
"""From one acknowledged canary write of an instance to the next."""


def silences(history: History, instance: int) -> list[Silence]:
    """The times without an acknowledged write, but for those in which the test stopped it."""
    answered = sorted(
        call.answered_at
        for call in history.calls
        if call.instance == instance and call.status == OK and is_canary(call)
    )
    return [silence for silence in pairwise(answered) if not _stopped(history, instance, silence)]


def _stopped(history: History, instance: int, silence: Silence) -> bool:
    return any(
        outage.since <= silence[1] and (outage.until is None or silence[0] <= outage.until)
        for outage in history.outages_of(instance)
    )


def _within(silence: Silence, fault: FaultRun) -> bool:
    return silence[0] < fault.settled and fault.began < silence[1]


def bounded(history: History, fold: Fold) -> Iterator[Violation]:
    """See `BOUNDED`."""
    del fold
    for instance in NUMBERS:
        spans = silences(history, instance)
        for fault in history.faults:
            for silence in spans:
                if not _within(silence, fault):
                    continue
                led_at = history.leaderless_until(fault, *silence)
                allowed_s = max(REFUSED_S, led_at - silence[0] + ELECTED_S + fault.lag_s)
                if why := _too_long(silence, fault, instance, allowed_s):
                    where = f"{fault.name}, instance {instance}"
                    yield Violation(BOUNDED, f"{where}: {why}", silence[0])


def _too_long(silence: Silence, fault: FaultRun, instance: int, allowed_s: float) -> str:
    """Why this silence is too long for the place of this instance; empty if it is not."""
    began, ended = silence
    if not fault.quorum:
        since, limit_s = max(began, fault.healed), FORMED_S
    elif instance in fault.apart:
        since, limit_s = max(began, fault.healed), REFUSED_S
    else:
        since, limit_s = began, MOVED_S if instance in fault.stranded else allowed_s
    lasted_s = ended - since
    if lasted_s <= limit_s + fault.slack_s:
        return ""
    return f"no write for {lasted_s:.1f} s, allowed are {limit_s:g} s"


def calm(history: History, fold: Fold) -> Iterator[Violation]:
    """See `CALM`."""
    del fold
    slack_s = max((fault.slack_s for fault in history.faults), default=0.0)
    for instance in NUMBERS:
        for silence in silences(history, instance):
            if any(_within(silence, fault) for fault in history.faults):
                continue
            if silence[1] - silence[0] > CALM_S + slack_s:
                lasted = f"{silence[1] - silence[0]:.1f} s"
                yield Violation(CALM, f"instance {instance}: {lasted} without a write", silence[0])


def readiness(history: History, fold: Fold) -> Iterator[Violation]:
    """See `READY_NAMES`: it reports it in time, and goes on until writes pass again."""
    del fold
    for instance in NUMBERS:
        seen = [each for each in history.readiness if each.instance == instance]
        for silence in silences(history, instance):
            slack_s = history.slack_s(*silence)
            limit_s = READY_NAMES_S + slack_s
            if silence[1] - silence[0] <= limit_s + 1:
                continue
            for since, lasted_s in _ready_spans(seen, silence):
                if lasted_s > limit_s:
                    where = f"instance {instance}: ready for {lasted_s:.1f} s"
                    total = f"in {silence[1] - silence[0]:.1f} s without a write"
                    yield Violation(READY_NAMES, f"{where} {total}", since)


def _ready_spans(seen: list[Readiness], silence: Silence) -> Iterator[tuple[float, float]]:
    """When it said that it was ready, without a break, and for how long."""
    since: float | None = None
    newest = silence[0]
    for each in seen:
        if not silence[0] <= each.at <= silence[1]:
            continue
        if each.status == OK:
            since = each.at if since is None else since
            newest = each.at
        elif since is not None:
            yield since, newest - since
            since = None
    if since is not None:
        yield since, newest - since


def doctor(history: History, fold: Fold) -> Iterator[Violation]:
    """See `DOCTOR_NAMES`: each instance's own doctor, while that instance takes no writes."""
    del fold
    for instance in NUMBERS:
        said = [each for each in history.diagnoses if each.instance == instance]
        for silence in silences(history, instance):
            limit_s = DOCTOR_NAMES_S + history.slack_s(*silence)
            if silence[1] - silence[0] <= limit_s:
                continue
            named = any(
                silence[0] <= each.at <= silence[0] + limit_s and NAMES.intersection(each.codes)
                for each in said
            )
            if not named:
                lasted = f"{silence[1] - silence[0]:.1f} s without a write"
                yield Violation(DOCTOR_NAMES, f"instance {instance}: {lasted}", silence[0])


def cleared(history: History, fold: Fold) -> Iterator[Violation]:
    """See `CLEARED`."""
    del fold
    for fault in history.faults:
        took_s = fault.cleared - fault.healed
        if took_s > CLEARED_S + fault.slack_s:
            yield Violation(CLEARED, f"{fault.name}: {took_s:.1f} s after its end", fault.healed)


def refused(calls: list[Call], fault: FaultRun) -> int:
    """How many calls were answered 503 or not at all while a fault lasted."""
    return sum(
        call.status in (0, 503) and fault.began <= call.answered_at <= fault.settled
        for call in calls
    )
