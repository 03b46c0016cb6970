"""Who must name a node or a clock that stops nothing, how soon, and for how long.

An operator has to know of the first node that is lost: with the second one the quorum goes.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tests.cluster.checks.health import DOCTOR_NAMES_S, NAMES, OK, READY_NAMES_S
from tests.cluster.fold import Fold
from tests.cluster.ports import NUMBERS
from tests.cluster.record import Diagnosis, FaultRun, History, Readiness, Violation

# A new leader must have heard nothing of a node for 2 s, and an instance has to find that leader.
ELECTED_READY_S = 5.0
UNNAMED_S = 10.0

NODE_READY = "a node that is silent or behind is named by /readyz within 3 s"
NODE_DOCTOR = "a node that is silent or behind is named by the doctor within 10 s"
CLOCK_READY = "a clock that is wrong is named by /readyz within 3 s"
CLOCK_DOCTOR = "a clock that is wrong is named by the doctor within 10 s"
UNNAMED = "no node and no clock is named when all is well again"

Word = TypeVar("Word", Readiness, Diagnosis)
Said = tuple[float, bool]
"""When an instance answered, and whether it did not name what it should."""


def nodes(history: History, fold: Fold) -> Iterator[Violation]:
    """See `NODE_READY` and `NODE_DOCTOR`; to say that the log is not there counts as well.

    A node that lags and whose acknowledgement every write needs is not behind: writes wait for it.
    """
    del fold
    for fault in history.faults:
        for node in (*fault.silent, *(fault.behind if not fault.nodes else ())):
            for instance in NUMBERS:
                where = f"{fault.name}, instance {instance}: n{node} is not named"
                ready = [_is_silent(each, f"n{node}") for each in _of(history.readiness, instance)]
                yield from _too_long(
                    NODE_READY, where, ready, fault, _limit_s(history, fault, instance)
                )
                found = [_is_blind(each, f"n{node}") for each in _of(history.diagnoses, instance)]
                yield from _too_long(NODE_DOCTOR, where, found, fault, DOCTOR_NAMES_S)


def _limit_s(history: History, fault: FaultRun, instance: int) -> float:
    """What an instance may take to name a node after it was lost, or after it has said 503."""
    elected = (history.led_again_s(fault) or 0.0) > fault.struck - fault.began + 1
    disturbed = elected or instance in (*fault.apart, *fault.stranded)
    return ELECTED_READY_S if disturbed else READY_NAMES_S


def _is_silent(each: Readiness, node: str) -> Said:
    named = node in each.warnings.get("replicas", "").split()
    return each.at, each.status == OK and not named


def _is_blind(each: Diagnosis, node: str) -> Said:
    return each.at, node not in each.nodes and not NAMES.intersection(each.codes)


def clocks(history: History, fold: Fold) -> Iterator[Violation]:
    """See `CLOCK_READY` and `CLOCK_DOCTOR`: by the instance whose clock it is."""
    del fold
    for fault in history.faults:
        for instance in fault.clocks:
            where = f"{fault.name}, instance {instance}: its clock is not named"
            ready = [
                (each.at, each.status == OK and "clock" not in each.warnings)
                for each in _of(history.readiness, instance)
            ]
            yield from _too_long(CLOCK_READY, where, ready, fault, READY_NAMES_S)
            found = [
                (each.at, not {*NAMES, "ClocksDiffer"}.intersection(each.codes))
                for each in _of(history.diagnoses, instance)
            ]
            yield from _too_long(CLOCK_DOCTOR, where, found, fault, DOCTOR_NAMES_S)


def unnamed(history: History, fold: Fold) -> Iterator[Violation]:
    """See `UNNAMED`."""
    del fold
    for fault in history.faults:
        took_s = fault.unnamed - fault.settled
        if took_s > UNNAMED_S + fault.slack_s:
            evidence = f"{fault.name}: {took_s:.1f} s after the nodes were whole"
            yield Violation(UNNAMED, evidence, fault.settled)


def _of(said: Iterable[Word], instance: int) -> Iterator[Word]:
    return (each for each in said if each.instance == instance)


def _too_long(
    sentence: str, where: str, said: Iterable[Said], fault: FaultRun, limit_s: float
) -> Iterator[Violation]:
    """The first time without a break, while the fault lasts, that is too long."""
    since: float | None = None
    for at, is_unnamed in said:
        if not fault.struck <= at <= fault.healed:
            continue
        since = None if not is_unnamed else at if since is None else since
        if since is not None and at - since > limit_s + fault.slack_s:
            yield Violation(sentence, f"{where} for {at - since:.1f} s", since)
            return
